"""Several values put together."""

import torch
from torch import Tensor

from edgeprune.onnx_import.registry import Call, operator
from edgeprune.onnx_import.types import as_type


@operator("Concat")
def concat(c: Call) -> Tensor:
    """Along a dimension."""
    values = [c.tensor(i) for i in range(len(c.inputs))]
    dtype = next((v.dtype for v, x in zip(values, c.inputs) if x is v), values[0].dtype)
    same = [as_type(value, dtype) for value in values]
    return torch.cat(same, c.attribute("axis"))

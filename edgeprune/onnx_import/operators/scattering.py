"""Writing entries by indices into a copy."""

from typing import Any

import torch
from torch import Tensor

from edgeprune.onnx_import.operators.indexing import positive
from edgeprune.onnx_import.registry import Call, operator

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@operator("ScatterElements", "Scatter")
def scatter_elements(c: Call) -> Tensor:
    """An entry for each index, along a dimension."""
    x, index, updates = c.tensor(0), c.tensor(1).long(), c.tensor(2)
    axis = c.attribute("axis", 0) % x.dim()
    index = positive(index, x.shape[axis])
    how = c.attribute("reduction", "none")
    if how == "none":
        return x.scatter(axis, index, updates)
    return x.scatter_reduce(axis, index, updates, _REDUCTIONS[how])


@operator("ScatterND")
def scatter_nd(c: Call) -> Tensor:
    """Whole slices at tuples of indices."""
    x, index, updates = c.tensor(0), c.tensor(1).long(), c.tensor(2)
    places = tuple(positive(part, x.shape[d]) for d, part in enumerate(index.unbind(-1)))
    how = c.attribute("reduction", "none")
    if how in ("none", "add"):
        return x.index_put(places, updates, accumulate=how == "add")
    return _reduced(x, places, updates, _REDUCTIONS[how])


def _reduced(x: Tensor, places: tuple[Tensor, ...], updates: Tensor, how: str) -> Tensor:
    """Through flat indices, which torch can combine in other ways than by a sum."""
    flat: Any = torch.zeros_like(places[0])
    for size, part in zip(x.shape, places):
        flat = flat * size + part
    count = len(places)
    rows = x.flatten(0, count - 1) if count else x.unsqueeze(0)
    rest = rows.shape[1:]
    index = flat.reshape(-1, *[1] * len(rest)).expand(-1, *rest)
    updates = updates.reshape(index.shape)
    return rows.scatter_reduce(0, index, updates, how).reshape(x.shape)


@operator("TensorScatter")
def tensor_scatter(c: Call) -> Tensor:
    """A cache of keys or values is part of a decoder's loop."""
    c.fail("writes into a cache; export the model without its cache of keys and values")

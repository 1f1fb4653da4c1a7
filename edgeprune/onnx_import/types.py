"""Element types of ONNX as torch has them: every floating type becomes float32."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:
    import onnx

# Numbers of onnx.TensorProto.DataType, which are part of the format. torch computes with no other.
_TORCH = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float32,
    11: torch.float32,
    16: torch.float32,
}
_NAMES = {10: "float16", 11: "float64", 16: "bfloat16"}
_NUMPY = {
    torch.float32: np.float32,
    torch.uint8: np.uint8,
    torch.int8: np.int8,
    torch.int16: np.int16,
    torch.int32: np.int32,
    torch.int64: np.int64,
    torch.bool: np.bool_,
}


def torch_type(number: int) -> torch.dtype | None:
    """The torch type of an ONNX one, or None where there is none (text, 8-bit floats, complex)."""
    return _TORCH.get(number)


def rounded_name(number: int) -> str | None:
    """The name of a floating type that is read as float32 instead, or None."""
    return _NAMES.get(number)


def numpy_type(dtype: torch.dtype) -> Any:
    """NumPy's type for values of a torch type."""
    return _NUMPY.get(dtype, np.float32)


def as_type(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor in a type; itself, without a trace in a captured graph, where it has it."""
    return x if x.dtype == dtype else x.to(dtype)


def as_array(tensor: "onnx.TensorProto") -> npt.NDArray[Any] | None:
    """The values of an ONNX tensor, floats as float32; None where torch has no such type."""
    from onnx import numpy_helper

    dtype = torch_type(tensor.data_type)
    if dtype is None:
        return None
    return np.asarray(numpy_helper.to_array(tensor)).astype(numpy_type(dtype))

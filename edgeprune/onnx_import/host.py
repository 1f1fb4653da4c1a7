"""Numbers that are known without running the network: constants, and sizes of its tensors.

Sizes may be symbols (``torch.SymInt``) while a network is captured, so arithmetic on them runs on
arrays of Python objects, never on tensors.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgeprune.onnx_import.types import numpy_type

_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)


@dataclass(frozen=True, eq=False)
class Host:
    """An array of known numbers, or of symbols.

    Attributes:
        array: Of numbers, or of objects where sizes are among them.
        dtype: As ONNX has it.
        tensor: The parameter or buffer that holds a constant, where one does.
    """

    array: npt.NDArray[Any]
    dtype: torch.dtype
    tensor: Tensor | None = None

    @classmethod
    def of(cls, values: Any, dtype: torch.dtype = torch.int64) -> "Host":
        """From numbers, symbols, lists of them or an array."""
        if isinstance(values, np.ndarray):
            return cls(values, dtype)
        array = np.empty(np.shape(values) if not _is_number(values) else (), object)
        array[...] = values
        return cls(array, dtype)

    @property
    def symbolic(self) -> bool:
        """Whether any number is a symbol."""
        return self.array.dtype == object and any(isinstance(x, _SYMBOLS) for x in self.array.flat)

    def objects(self) -> npt.NDArray[Any]:
        """The numbers as Python objects."""
        return self.array.astype(object)

    def numbers(self) -> list[Any]:
        """All numbers in one list."""
        values: list[Any] = self.objects().reshape(-1).tolist()
        return values

    def known(self) -> npt.NDArray[Any]:
        """The numbers in an array of their own type; there must be no symbol."""
        return np.asarray(self.array, dtype=numpy_type(self.dtype))

    def bound(self, tensor: Tensor) -> "Host":
        """The same numbers, with the tensor that stores them."""
        return replace(self, tensor=tensor)

    def as_tensor(self) -> Tensor:
        """The stored tensor, or a new one."""
        if self.tensor is not None:
            return self.tensor
        if not self.symbolic:
            return torch.from_numpy(np.array(self.known()))
        parts = [torch.scalar_tensor(x, dtype=self.dtype) for x in self.numbers()]
        return torch.stack(parts).reshape(self.array.shape)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | bool | np.generic | torch.SymInt | torch.SymFloat)


def divide(a: Any, b: Any) -> Any:
    """A quotient as ONNX has it: of whole numbers it is cut towards zero."""
    if any(isinstance(x, float | torch.SymFloat) for x in (a, b)):
        return a / b
    if isinstance(a, int) and isinstance(b, int):
        return math.trunc(a / b) if abs(a) < 2**52 else a // b
    return a // b

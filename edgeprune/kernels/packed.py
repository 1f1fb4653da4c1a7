"""A block-sparse weight, packed, that multiplies activations."""

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import numpy.typing as npt

from edgeprune.atomic import atomic_path
from edgeprune.errors import InputError
from edgeprune.kernels import library
from edgeprune.kernels.packing import (
    HEADER_FIELDS,
    PRECISIONS,
    Precision,
    entry_weights,
    pack_bytes,
)

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]
Matrix = Union[npt.NDArray[Any], "torch.Tensor"]

_ALIGNMENT = 64
_FIELDS_AT = 12  # behind the magic and the version


class PackedWeight:
    """A weight of shape (outputs, inputs) in the kernels' form, which is its file, too.

    Attributes:
        data: The packed form.
        precision: Of the weight; activations are rounded to it while they are multiplied.
        block: Outputs by adjacent inputs.
    """

    def __init__(self, data: bytes) -> None:
        """Check every offset of the packed form and take it over.

        Raises:
            InputError: It is truncated, altered, or of another version.
            UnavailableError: The kernels were not built.
        """
        self.data = _aligned(data)
        self._handles: dict[str, int] = {}
        self.handle()
        end = _FIELDS_AT + 4 * len(HEADER_FIELDS)
        fields = dict(zip(HEADER_FIELDS, self.data[_FIELDS_AT:end].view(np.uint32).tolist()))
        self.precision: Precision = PRECISIONS[fields["precision"]]
        self.block = (fields["rows"], fields["depth"])
        self.outputs, self.inputs = fields["outputs"], fields["inputs"]
        self._entries: int = fields["entries"]

    def __reduce__(self) -> tuple[type["PackedWeight"], tuple[bytes]]:
        """Copies and other processes check the bytes anew: handles belong to one object."""
        return PackedWeight, (self.data.tobytes(),)

    @property
    def sparsity(self) -> float:
        """Share of the weight that is left out."""
        kept = self._entries * entry_weights(self.precision, self.block)
        return 1.0 - float(kept) / float(self.outputs * self.inputs)

    def multiply(
        self,
        x: Matrix,
        bias: Matrix | None = None,
        *,
        activation: str = "none",
        scale: float | None = None,
        zero_point: int = 128,
        isa: str | None = None,
        parts: int = 1,
        out: Floats | None = None,
    ) -> Floats:
        """``activation(x @ W.T + bias)`` on the calling thread.

        Args:
            x: Shape (..., inputs); float32.
            bias: Shape (outputs,).
            activation: ``none``, ``relu``, ``gelu`` or ``silu``.
            scale: int8 only: of the activations; by default every row finds its own.
            zero_point: int8 only: the byte that stands for zero, with a given scale.
            isa: One of :func:`instruction_sets`; by default the best.
            parts: Cut the work as that many threads would; the result is the same.
            out: Written to and returned; shape (..., outputs), contiguous.

        Raises:
            InputError: Shapes do not fit, or the processor lacks the instruction set.
        """
        from edgeprune.kernels.layers import SparseLinear, multiply_layers

        if scale is not None and not scale > 0:
            raise InputError(f"scale is {scale}; it has to be above 0")
        addend = np.zeros(self.outputs, np.float32) if bias is None else np.asarray(bias)
        layer = SparseLinear(self, addend, activation, scale or 0.0, zero_point)
        return multiply_layers([layer], x, isa=isa, parts=parts, out=out)

    def handle(self, isa: str = "") -> int:
        """The weight as an instruction set wants it (the best, if none is named) in C++.

        Raises:
            InputError: The processor lacks the instruction set.
        """
        if isa not in self._handles:
            self._handles[isa] = library.opened(self.data, isa)
            # The finalizer keeps the bytes alive as long as the handle that points into them.
            weakref.finalize(self, _close, self._handles[isa], self.data)
        return self._handles[isa]

    def save(self, path: Path | str) -> None:
        """Write the packed form, whole or not at all."""
        with atomic_path(Path(path)) as partial:
            partial.write_bytes(self.data.tobytes())

    @classmethod
    def load(cls, path: Path | str) -> "PackedWeight":
        """Read what :meth:`save` wrote.

        Raises:
            InputError: The file cannot be read, or is truncated or altered.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        return cls(data)


def pack(
    weight: Matrix,
    block: tuple[int, int] = (4, 1),
    precision: Precision = "f32",
    *,
    scale: Matrix | None = None,
) -> PackedWeight:
    """Pack a dense weight of shape (outputs, inputs), leaving out its blocks of zeros.

    Args:
        weight: NumPy array or torch tensor.
        block: Outputs by adjacent inputs.
        precision: Of the weights; activations are rounded to it while they are multiplied.
        scale: int8 only: of each output, shape (outputs,); by default its largest weight is 127.

    Raises:
        InputError: The weight is not a finite matrix, or there is no kernel for such a block.
        UnavailableError: The kernels were not built.
    """
    steps = None if scale is None else _array(scale)
    return PackedWeight(pack_bytes(_array(weight), block, precision, steps))


def _array(matrix: Matrix) -> npt.NDArray[Any]:
    dense = matrix.detach().float().cpu().numpy() if hasattr(matrix, "detach") else matrix
    return np.asarray(dense)


def _close(handle: int, _kept_alive: npt.NDArray[np.uint8]) -> None:
    library.close(handle)


def _aligned(data: bytes) -> npt.NDArray[np.uint8]:
    """A copy that starts at a multiple of a cache line."""
    room = np.empty(len(data) + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    aligned = room[start : start + len(data)]
    aligned[:] = np.frombuffer(data, np.uint8)
    aligned.flags.writeable = False
    return aligned

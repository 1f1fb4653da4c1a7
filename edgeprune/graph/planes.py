"""What can be removed of a value, dimension by dimension.

A value may lose channels, and tokens, and heads: each is a plane, a label tensor of the value's
shape that varies along one dimension in the end. An entry goes with any of its labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Plane:
    """One way in which a value can lose entries.

    Attributes:
        labels: The label of every entry; stride 0 in dimensions along which nothing varies.
        zero: Whether an entry is exactly zero once the weights behind its label are. Only such
            entries may be summed over.
    """

    labels: Tensor
    zero: bool = True

    def map(self, function: Callable[[Tensor], Tensor]) -> "Plane":
        """The same plane after a move of data."""
        return replace(self, labels=function(self.labels))


@dataclass(frozen=True, eq=False)
class Planes:
    """All planes of one tensor.

    Attributes:
        shape: The tensor's shape.
        parts: Planes of that shape.
    """

    shape: tuple[int, ...]
    parts: tuple[Plane, ...] = ()

    def map(self, function: Callable[[Tensor], Tensor], shape: Sequence[int]) -> "Planes":
        """Every plane moved alike, to a new shape."""
        return Planes(tuple(shape), tuple(part.map(function) for part in self.parts))

    def without_zeros(self) -> "Planes":
        """The same planes where removed entries are no longer zero."""
        return Planes(self.shape, tuple(replace(part, zero=False) for part in self.parts))


def laid_out(
    vectors: Sequence[Tensor | None], shape: tuple[int, ...], *, zero: bool = True
) -> Planes:
    """A plane for each label vector along its dimension; None where there is none."""
    parts = []
    for dim, vector in enumerate(vectors):
        if vector is not None:
            wide = vector.reshape([-1 if d == dim else 1 for d in range(len(shape))])
            parts.append(Plane(wide.expand(shape), zero))
    return Planes(shape, tuple(parts))


def spans(labels: Tensor) -> list[int]:
    """The dimensions along which a label tensor is laid out, whether or not its classes differ."""
    return [d for d in range(labels.dim()) if labels.size(d) > 1 and labels.stride(d) != 0]

"""A size of a tensor as the levels of structures decide it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeprune.graph.structure import SymbolicDim


@dataclass(frozen=True)
class Axis:
    """A size that the levels of one or more structures decide: ``fixed + sum(count * level)``."""

    fixed: int
    counts: tuple[tuple[str, int], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The structures, each once."""
        return tuple(name for name, _ in self.counts)

    def per_unit(self, name: str) -> int:
        """What a unit of a structure adds to the size; 0 for one that has no part in it."""
        return sum(count for other, count in self.counts if other == name)

    def size(self, levels: Mapping[str, int]) -> int:
        """The size at ``levels``."""
        return self.fixed + sum(count * levels[name] for name, count in self.counts)


def axes_of(dim: "SymbolicDim") -> tuple[Axis, ...]:
    """The sizes whose product a tensor dimension is: one, but for heads that may be narrowed."""
    return tuple(Axis(f.fixed, tuple(sorted(f.per_unit))) for f in dim.factors())

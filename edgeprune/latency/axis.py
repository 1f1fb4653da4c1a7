"""A size of a tensor as the levels of structures decide it."""

from collections.abc import Mapping
from dataclasses import dataclass


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

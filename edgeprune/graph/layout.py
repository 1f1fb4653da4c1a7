"""Where every unit of every structure has positions, in parameters and in values.

Units are numbered through all structures. A dimension that no structure touches is None, so the
layout of a large network stays small. Where a position goes with either of two units, such as a
feature of a head with the head or with its place in all heads, both are there, a row each.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from torch.fx import Node

from edgeprune.graph.structure import SymbolicDim

Units = npt.NDArray[np.int32]
Dims = tuple[Units | None, ...]


@dataclass(frozen=True, eq=False)
class Layout:
    """Units along dimensions.

    Attributes:
        parameters: By qualified name, per dimension the unit of every position, or None.
        values: By node, per output tensor and dimension the same.
        offsets: First unit number of every structure, in order.
        units: Number of units of every structure.
        minimum: How many units must stay, of structures of which several must.
    """

    parameters: dict[str, Dims]
    values: dict[Node, tuple[Dims, ...]]
    offsets: dict[str, int] = field(default_factory=dict)
    units: dict[str, int] = field(default_factory=dict)
    minimum: dict[str, int] = field(default_factory=dict)

    def structures_in(self, dims: Units | None) -> tuple[str, ...]:
        """Structures with units along a dimension, in order."""
        if dims is None:
            return ()
        present = dims[dims >= 0]
        starts = np.array(list(self.offsets.values()))
        names = list(self.offsets)
        which = np.unique(np.searchsorted(starts, present, side="right") - 1)
        return tuple(names[i] for i in which)

    def numbered(self, name: str, dims: Units) -> Units:
        """Along a dimension the unit of one structure at each position, -1 where it has none."""
        start, count = self.offsets[name], self.units[name]
        found: Units = np.where((dims >= start) & (dims < start + count), dims - start, -1)
        return found

    def staying(self, dims: Units, stays: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Whether each position along a dimension stays, given which units do."""
        each = np.where(dims >= 0, stays[dims], True).reshape(-1, dims.shape[-1])
        every: npt.NDArray[np.bool_] = np.logical_and.reduce(each, axis=0)
        return every

    def symbolic(self, dims: Units | None, size: int) -> SymbolicDim:
        """The size of a dimension as a function of the levels."""
        if dims is None:
            return SymbolicDim(size)
        if dims.ndim == 1:
            return self._sum(dims)
        # Every unit of the second row has the same positions of the first.
        inside, outside = dims
        (name,) = self.structures_in(outside)
        first = inside[outside == self.offsets[name]]
        return replace(self._sum(first), times=(SymbolicDim(0, ((name, 1),)),))

    def _sum(self, dims: Units) -> SymbolicDim:
        per_unit = []
        for name in self.structures_in(dims):
            positions = int((self.numbered(name, dims) >= 0).sum())
            per_unit.append((name, positions // self.units[name]))
        return SymbolicDim(int((dims < 0).sum()), tuple(per_unit))

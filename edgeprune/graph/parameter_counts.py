"""How many parameters go with each structure, and how many each cause froze."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgeprune.graph.network import Network
from edgeprune.graph.structure import Slot

Shapes = Mapping[str, tuple[int, ...]]
# A dimension of a tensor, and how many of its positions are meant.
_Positions = Mapping[tuple[str, int], int]


@dataclass(frozen=True)
class FrozenGroup:
    """All that one cause froze.

    Attributes:
        operator: The operator whose rule says so; empty where none of the network's does.
        place: The user's source line, or the graph node; empty likewise.
        reason: Why.
        dimensions: How many weight dimensions.
        parameters: How many parameters lie at the frozen positions; another dimension of theirs
            may be free.
        tensors: Names of the weights.
    """

    operator: str
    place: str
    reason: str
    dimensions: int
    parameters: int
    tensors: tuple[str, ...]


def parameter_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters that the network computes with, by qualified name."""
    parameters = network.captured.module.named_parameters()
    return {name: tuple(value.shape) for name, value in parameters}


def structure_parameters(network: Network) -> dict[str, int]:
    """By structure how many parameters go when all of it goes.

    A weight between two structures counts for both, so these add up to more than there is.
    """
    shapes = parameter_shapes(network)
    return {s.name: _touched(shapes, _positions(s.slots)) for s in network.structures.values()}


def prunable_parameters(network: Network) -> int:
    """How many parameters go with any structure, each counted once."""
    slots = (slot for structure in network.structures.values() for slot in structure.slots)
    return _touched(parameter_shapes(network), _positions(slots))


def frozen_groups(network: Network) -> list[FrozenGroup]:
    """What froze, by cause, that of most parameters first."""
    shapes = parameter_shapes(network)
    by_cause = defaultdict(list)
    for entry in network.frozen:
        by_cause[entry.cause].append(entry)
    groups = [
        FrozenGroup(
            *cause,
            dimensions=len(entries),
            parameters=_touched(shapes, {(e.tensor, e.dim): e.positions for e in entries}),
            tensors=tuple(dict.fromkeys(e.tensor for e in entries)),
        )
        for cause, entries in by_cause.items()
    ]
    return sorted(groups, key=lambda group: -group.parameters)


def _positions(slots: Iterable[Slot]) -> dict[tuple[str, int], int]:
    """How many positions of each dimension belong to some of the slots."""
    marked: dict[tuple[str, int], np.ndarray[tuple[int], np.dtype[np.bool_]]] = {}
    for slot in slots:
        here = slot.unit >= 0
        before = marked.get((slot.tensor, slot.dim))
        marked[slot.tensor, slot.dim] = here if before is None else here | before
    return {place: int(mask.sum()) for place, mask in marked.items()}


def _touched(shapes: Shapes, positions: _Positions) -> int:
    """Elements at one of the positions along any dimension, of parameters and not of buffers."""
    left: dict[str, list[int]] = {}
    for (tensor, dim), count in positions.items():
        if tensor in shapes:
            left.setdefault(tensor, list(shapes[tensor]))[dim] -= count
    return sum(math.prod(shapes[name]) - math.prod(sizes) for name, sizes in left.items())

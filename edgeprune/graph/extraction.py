"""From classes of labels to structures.

Two classes belong to the same structure when they occupy the same number of positions in every
dimension of every parameter and value, so that it does not matter for any shape which of them
is removed.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.graph.coupling import Coupling
from edgeprune.graph.labels import FEATURE, Ints, narrowed
from edgeprune.graph.layout import Dims, Layout, Units
from edgeprune.graph.planes import Plane, Planes, spans
from edgeprune.graph.structure_names import describe_families

Flags = npt.NDArray[np.bool_]
_Places = dict[Any, list[tuple[Ints | None, ...]]]


def extract_layout(coupling: Coupling) -> tuple[Layout, dict[str, str]]:
    """The layout of all prunable classes, and the kind of every structure by its name."""
    live = _live_classes(coupling)
    is_live = np.zeros(coupling.sets.size, bool)
    is_live[live] = True
    parameters = _parameter_places(coupling, is_live)
    values = _value_places(coupling, is_live)
    families = _families(live, parameters, values, _order(coupling))
    number = np.full(coupling.sets.size, -1, np.int32)
    family = np.full(coupling.sets.size, -1, np.int32)
    start, starts = 0, []
    for index, members in enumerate(families):
        number[members] = np.arange(start, start + len(members))
        family[members] = index
        starts.append(start)
        start += len(members)
    described = describe_families(coupling, family, len(families), values)
    layout = Layout(
        {name: _numbered(dims[0], number) for name, dims in parameters.items()},
        {n: tuple(_numbered(d, number) for d in dims) for n, dims in values.items()},
        {name: first for (name, _), first in zip(described, starts, strict=True)},
        {name: len(m) for (name, _), m in zip(described, families, strict=True)},
    )
    return replace(layout, minimum=_minimum(coupling, layout)), dict(described)


def _minimum(coupling: Coupling, layout: Layout) -> dict[str, int]:
    """How many units must stay where a top-k chooses among them: as many as it chooses."""
    found: dict[str, int] = {}
    for choice in coupling.expert_choices:
        for name in layout.structures_in(layout.values.get(choice.router, ((None,),))[0][-1]):
            found[name] = min(choice.count, layout.units[name])
    return found


def _order(coupling: Coupling) -> dict[int, int]:
    """Rank of every class by the first layer that produces it."""
    position = {node.name: i for i, node in enumerate(coupling.graph.nodes)}
    uses = sorted(coupling.uses.items(), key=lambda item: position[item[1].layer])
    found = [
        coupling.sets.find(labels.numpy())
        for (parameter, dim), use in uses
        if use.role == "output" and (labels := coupling.labels_along(parameter, dim)) is not None
    ]
    if not found:
        return {}
    classes, first = np.unique(np.concatenate(found), return_index=True)
    return dict(zip(classes.tolist(), first.tolist(), strict=True))


def _numbered(dims: tuple[Ints | None, ...], number: Units) -> Dims:
    result: list[Units | None] = []
    for classes in dims:
        found = None if classes is None else number[classes]
        result.append(found if found is not None and (found >= 0).any() else None)
    return tuple(result)


def _live_classes(coupling: Coupling) -> Ints:
    """Classes with a weight row or column that nothing froze."""
    found = [
        np.unique(coupling.sets.find(labels.numpy()))
        for dims in coupling.parameters.values()
        for labels in dims
        if labels is not None
    ]
    classes = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    live: Ints = classes[(classes != 0) & (coupling.sets.levels(classes) == FEATURE)]
    return live


def _parameter_places(coupling: Coupling, is_live: Flags) -> _Places:
    places: _Places = {}
    for name, dims in coupling.parameters.items():
        classes = [None if d is None else coupling.sets.find(d.numpy()) for d in dims]
        places[name] = [tuple(d if d is not None and is_live[d].any() else None for d in classes)]
    return {k: v for k, v in places.items() if any(d is not None for d in v[0])}


def _value_places(coupling: Coupling, is_live: Flags) -> _Places:
    places: _Places = {}
    for node, value in coupling.values.items():
        tensors = value if isinstance(value, tuple) else (value,)
        found = [_per_dimension(coupling, planes, is_live) for planes in tensors]
        if any(d is not None for dims in found for d in dims):
            places[node] = found
    return places


def _per_dimension(coupling: Coupling, planes: Planes, is_live: Flags) -> tuple[Ints | None, ...]:
    """Per dimension the classes of the plane that varies along it."""
    dims: list[Ints | None] = [None] * len(planes.shape)
    whole: list[Plane] = []
    for part in planes.parts:
        along = coupling.varying(part.labels)
        if along:
            _place(coupling, part, along[0], dims, is_live)
        else:
            whole.append(part)
    for part in whole:
        # One unit owns the whole value. It is gone or it is not, whichever dimension says so.
        free = [d for d, size in enumerate(planes.shape) if size > 1 and dims[d] is None]
        best = [d for d in spans(part.labels) if d in free] or free
        if best:
            _place(coupling, part, best[-1], dims, is_live)
    return tuple(dims)


def _place(
    coupling: Coupling, part: Plane, dim: int, dims: list[Ints | None], is_live: Flags
) -> None:
    first = narrowed(part.labels, [d for d in range(part.labels.dim()) if d != dim])
    classes = coupling.sets.find(first.reshape(-1).numpy())
    if is_live[classes].any():
        dims[dim] = np.where(is_live[classes], classes, 0)


def _families(live: Ints, parameters: _Places, values: _Places, rank: dict[int, int]) -> list[Ints]:
    """Classes grouped by footprint, in the order in which they appear in the graph."""
    size = int(live.max()) + 1 if len(live) else 1
    signature = np.zeros(size, np.uint64)
    random = np.random.default_rng(0)
    for dims in _all_dims(parameters, values):
        classes, positions = np.unique(dims, return_counts=True)
        counts = positions.astype(np.uint64)
        key = random.integers(1, 2**63, dtype=np.uint64)
        with np.errstate(over="ignore"):
            signature[classes] += (counts * counts + counts) * key
    groups: dict[int, list[int]] = defaultdict(list)
    last = len(rank) + 10**9
    for label in sorted(live.tolist(), key=lambda c: (rank.get(c, last), c)):
        groups[int(signature[label])].append(label)
    return [np.array(members, np.int64) for members in groups.values()]


def _all_dims(parameters: _Places, values: _Places) -> Iterator[Ints]:
    for places in (parameters, values):
        for tensors in places.values():
            for dims in tensors:
                yield from (classes for classes in dims if classes is not None)

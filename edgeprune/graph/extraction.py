"""From classes of labels to structures.

Two classes belong to the same structure when they occupy the same number of positions in every
dimension of every parameter and value, so that it does not matter for any shape which of them
is removed.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgeprune.graph.coupling import Coupling, Weight
from edgeprune.graph.labels import Ints, varying_dims
from edgeprune.graph.layout import Dims, Layout, Units
from edgeprune.graph.ops import output_shapes
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
    return layout, dict(described)


def _order(coupling: Coupling) -> dict[int, int]:
    """Rank of every class by the first layer that produces it."""
    position = {node.name: i for i, node in enumerate(coupling.graph.nodes)}
    uses = sorted(coupling.uses.items(), key=lambda item: position[item[1].layer])
    found = [
        coupling.sets.find(coupling.weights[parameter].dims[dim].numpy())
        for (parameter, dim), use in uses
        if parameter in coupling.weights and use.role == "output"
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
        for weight in coupling.weights.values()
        for labels in weight.dims
    ]
    classes = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    live: Ints = classes[classes != 0]
    return live


def _parameter_places(coupling: Coupling, is_live: Flags) -> _Places:
    places: _Places = {}
    for name, weight in coupling.weights.items():
        dims = [coupling.sets.find(labels.numpy()) for labels in weight.dims]
        places[name] = [tuple(d if is_live[d].any() else None for d in dims)]
    for name, labels in coupling.elements.items():
        if name not in places:
            places[name] = [_per_dimension(coupling, labels, is_live)]
    return {k: v for k, v in places.items() if any(d is not None for d in v[0])}


def _value_places(coupling: Coupling, is_live: Flags) -> _Places:
    places: _Places = {}
    for node, value in coupling.values.items():
        found: list[tuple[Ints | None, ...]] = []
        if isinstance(value, Weight):
            dims = [coupling.sets.find(labels.numpy()) for labels in value.dims]
            found = [tuple(d if is_live[d].any() else None for d in dims)]
        elif output_shapes(node):
            parts = value if isinstance(value, tuple) else (value,)
            found = [_per_dimension(coupling, p, is_live) for p in parts if isinstance(p, Tensor)]
        if any(d is not None for dims in found for d in dims):
            places[node] = found
    return places


def _per_dimension(coupling: Coupling, labels: Tensor, is_live: Flags) -> tuple[Ints | None, ...]:
    """The classes along the one dimension in which they vary."""
    classes = coupling.sets.classes(labels)
    keep = torch.from_numpy(np.asarray(is_live[classes.numpy()]))
    dims: list[Ints | None] = [None] * labels.dim()
    if not bool(keep.any()):
        return tuple(dims)
    classes = torch.where(keep, classes, torch.zeros((), dtype=torch.int64))
    along = varying_dims(classes)
    if along:
        dim = along[0]
        vector = classes.movedim(dim, 0).reshape(classes.size(dim), -1)[:, 0]
    else:
        # One unit owns the whole value. It is gone or it is not, whichever dimension says so.
        sizes = list(labels.shape)
        dim = next((d for d in reversed(range(len(sizes))) if sizes[d] > 1), len(sizes) - 1)
        if dim < 0:
            return tuple(dims)
        vector = classes.reshape(-1)[:1].expand(sizes[dim])
    dims[dim] = vector.numpy().copy()
    return tuple(dims)


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

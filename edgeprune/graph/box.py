"""Survivors must stay rectangular: one dimension for each plane, one plane for each dimension."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from edgeprune.graph.labels import FEATURE, Ints, varying_dims
from edgeprune.graph.planes import Planes

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling


def tie_to_boxes(coupling: "Coupling") -> None:
    """Per plane keep the dimension with most features and tie the labels over the others.

    Where two planes lie along one dimension, the one with fewer features is frozen.
    """
    for planes in _tensors(coupling):
        claimed: dict[int, Tensor] = {}
        for part in planes.parts:
            dims = _tie_to_one(coupling, part.labels)
            if not dims:
                continue
            rival = claimed.get(dims[0])
            weaker = part.labels
            if rival is None:
                claimed[dims[0]] = part.labels
            elif not coupling.same(rival, part.labels):
                if _weight(coupling, rival) < _weight(coupling, part.labels):
                    claimed[dims[0]], weaker = part.labels, rival
                coupling.freeze(weaker, "shares a dimension with another structure")


def _tie_to_one(coupling: "Coupling", labels: Tensor) -> list[int]:
    """The dimension along which labels vary, after they were tied over all others."""
    classes = coupling.sets.classes(labels)
    dims = varying_dims(classes)
    if len(dims) <= 1 or coupling.level(labels) < FEATURE:
        return dims[:1]
    best = max(dims, key=lambda dim: _features_along(coupling, classes, dim))
    coupling.sets.tie(
        classes,
        [d for d in range(classes.dim()) if d != best],
        coupling.cause("survivors would not stay rectangular"),
    )
    return [best]


def _weight(coupling: "Coupling", labels: Tensor) -> tuple[int, int]:
    """What is kept rather than another: features before plain data, then the more of them."""
    return coupling.level(labels), coupling.count(labels)


def _tensors(coupling: "Coupling") -> Iterator[Planes]:
    for value in list(coupling.values.values()):
        yield from value if isinstance(value, tuple) else (value,)


def _features_along(coupling: "Coupling", classes: Tensor, dim: int) -> int:
    """How many separate features would be left if only ``dim`` could vary."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ids, inverse = np.unique(classes.numpy(), return_inverse=True)
    inverse = inverse.reshape(-1)
    size = classes.size(dim)
    shape = [size if i == dim else 1 for i in range(classes.dim())]
    place: Ints = np.broadcast_to(np.arange(size).reshape(shape), tuple(classes.shape)).reshape(-1)
    nodes = size + len(ids)
    edges = coo_matrix((np.ones(len(place)), (place, inverse + size)), shape=(nodes, nodes))
    _, component = connected_components(edges, directed=False)
    of_label = component[size:]
    features = set(of_label[coupling.sets.levels(ids) == FEATURE])
    return len(features - set(of_label[ids == 0]))

"""Survivors must stay rectangular: labels may vary along one dimension of a tensor only."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from edgeprune.graph.labels import FEATURE, Ints, varying_dims

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling


def tie_to_boxes(coupling: "Coupling") -> None:
    """Per tensor keep the dimension with most features and tie the labels over the others."""
    for labels in _tensors(coupling):
        classes = coupling.sets.classes(labels)
        if classes.numel() <= 1:
            continue
        dims = varying_dims(classes)
        if len(dims) <= 1:
            continue
        ids = np.unique(classes.numpy())
        if coupling.sets.levels(ids).max() < FEATURE:
            continue
        best = max(dims, key=lambda dim: _features_along(coupling, classes, dim))
        coupling.sets.tie(
            classes,
            [d for d in range(classes.dim()) if d != best],
            coupling.cause("survivors would not stay rectangular"),
        )


def _tensors(coupling: "Coupling") -> Iterator[Tensor]:
    for value in list(coupling.values.values()):
        for labels in value if isinstance(value, tuple) else (value,):
            if isinstance(labels, Tensor):
                yield labels
    yield from coupling.elements.values()


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

"""Labels: a union-find over integers, and tensors of them.

A label tensor has the shape of the value it describes. Dimensions along which nothing varies are
stride-0 expanded views, which every operation strips first, so that labels of a large activation
cost no more than its channels.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int64]

CONSTANT, ELEMENT, FEATURE = 0, 1, 2
"""What a label stands for: an entry of a constant, of a plain parameter, or a feature that has a
weight row or column. Only features are structures of their own; the rest goes along."""

_PYTHON_LOOP_LIMIT = 200


class LabelSets:
    """Disjoint sets of labels, each free or frozen by a cause; label 0 is always frozen."""

    def __init__(self) -> None:
        self._parent: Ints = np.zeros(1 << 12, np.int64)
        self._level = np.zeros(1 << 12, np.int8)
        self._made_level = np.zeros(1 << 12, np.int8)
        self._cause = np.zeros(1 << 12, np.int32)
        self._cause[0] = 1
        self._made: dict[tuple[str, int], Tensor] = {}
        self.size = 1
        self.changes = 0

    def fresh(self, count: int, origin: str, level: int = FEATURE) -> Tensor:
        """``count`` new labels, or the same ones again when asked for the same origin."""
        key = (origin, count)
        if key not in self._made:
            while self.size + count > len(self._parent):
                self._parent = np.concatenate([self._parent, np.zeros_like(self._parent)])
                self._level = np.concatenate([self._level, np.zeros_like(self._level)])
                self._made_level = np.concatenate(
                    [self._made_level, np.zeros_like(self._made_level)]
                )
                self._cause = np.concatenate([self._cause, np.zeros_like(self._cause)])
            new = np.arange(self.size, self.size + count)
            self._parent[new], self._level[new], self._made_level[new] = new, level, level
            self.size += count
            self._made[key] = torch.from_numpy(new.copy())
        return self._made[key]

    def _roots(self, labels: npt.ArrayLike) -> Ints:
        labels = np.asarray(labels, np.int64)
        roots = self._parent[labels]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                break
            roots = above
        self._parent[labels] = roots
        found: Ints = roots
        return found

    def find(self, labels: npt.ArrayLike) -> Ints:
        """The class of every label; 0 for frozen ones."""
        roots = self._roots(labels)
        found: Ints = np.where(self._cause[roots] != 0, 0, roots)
        return found

    def level(self, labels: npt.ArrayLike) -> int:
        """The highest level among the free labels, -1 if all are frozen."""
        free = self.find(labels)
        free = free[free != 0]
        return int(self._level[free].max()) if free.size else -1

    def own_level(self, labels: npt.ArrayLike) -> int:
        """The highest level with which these labels were made, whatever they are tied to."""
        return int(self._made_level[np.asarray(labels)].max(initial=-1))

    def anchored(self, labels: npt.ArrayLike) -> bool:
        """Whether a layer has a row or a column for any of these, frozen or not."""
        return bool(self._level[self._roots(labels)].max(initial=-1) == FEATURE)

    def levels(self, classes: npt.ArrayLike) -> npt.NDArray[np.int8]:
        """The level of every class."""
        found: npt.NDArray[np.int8] = self._level[np.asarray(classes)]
        return found

    def cause(self, labels: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """The cause that froze every label, 0 for free ones."""
        return self._cause[self._roots(labels)]

    def anchor(self, labels: npt.ArrayLike) -> None:
        """Make features of these labels: a layer has a row or a column for each."""
        roots = np.unique(self._roots(labels))
        raised = roots[(self._level[roots] < FEATURE) & (roots != 0)]
        self.changes += len(raised)
        self._level[raised] = FEATURE

    def freeze(self, labels: npt.ArrayLike, cause: int) -> None:
        """Freeze the classes of these labels; a class keeps its first cause."""
        roots = np.unique(self._roots(labels))
        free = roots[self._cause[roots] == 0]
        self.changes += len(free)
        self._cause[free] = cause

    def union(self, first: npt.ArrayLike, second: npt.ArrayLike, cause: int) -> None:
        """Merge classes pairwise; a free one that meets a frozen one is frozen with it."""
        a, b = self._roots(first).ravel(), self._roots(second).ravel()
        different = a != b
        if not different.any():
            return
        pairs = np.unique(np.stack([a[different], b[different]], 1), axis=0)
        frozen = self._cause[pairs] != 0
        free = pairs[~frozen.any(1)]
        if len(free):
            self._merge(free)
        for left, right in pairs[frozen[:, 0] != frozen[:, 1]].tolist():
            top, other = (left, right) if self._cause[left] else (right, left)
            self.freeze([other], cause if top == 0 else int(self._cause[top]))

    def _merge(self, pairs: Ints) -> None:
        if len(pairs) <= _PYTHON_LOOP_LIMIT:
            self._merge_few(pairs)
            return
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        ids, inverse = np.unique(pairs, return_inverse=True)
        inverse = inverse.reshape(pairs.shape)
        shape = (len(ids), len(ids))
        edges = coo_matrix((np.ones(len(pairs)), (inverse[:, 0], inverse[:, 1])), shape=shape)
        count, component = connected_components(edges, directed=False)
        lowest = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(lowest, component, ids)
        np.maximum.at(self._level, lowest[component], self._level[ids])
        self._parent[ids] = lowest[component]
        self.changes += len(ids) - count

    def _merge_few(self, pairs: Ints) -> None:
        parent, level = self._parent, self._level
        for left, right in pairs.tolist():
            while parent[left] != left:
                left = parent[left]
            while parent[right] != right:
                right = parent[right]
            if left == right:
                continue
            low, high = min(left, right), max(left, right)
            parent[high] = low
            level[low] = max(level[low], level[high])
            self.changes += 1

    # -- tensors of labels

    def classes(self, labels: Tensor) -> Tensor:
        """Classes of a label tensor; constant dimensions come back with size 1."""
        return torch.from_numpy(self.find(strip(labels).numpy()))

    def varies(self, labels: Tensor, dims: Sequence[int]) -> bool:
        """Whether the classes differ along any of these dimensions."""
        return bool(varying_dims(self.classes(labels), dims))

    def tie(self, labels: Tensor, dims: Sequence[int], cause: int) -> Tensor:
        """Make the labels constant along dimensions; returns them with size 1 there."""
        whole = strip(labels)
        first = narrowed(whole, dims)
        if first.numel() != whole.numel():
            self.union(whole.numpy(), first.expand(whole.shape).numpy(), cause)
        return first


def strip(labels: Tensor) -> Tensor:
    """Narrow every stride-0 dimension to size 1."""
    for dim in range(labels.dim()):
        if labels.size(dim) > 1 and labels.stride(dim) == 0:
            labels = labels.narrow(dim, 0, 1)
    return labels


def narrowed(labels: Tensor, dims: Sequence[int]) -> Tensor:
    """The first entry along each of these dimensions, which come back with size 1."""
    for dim in dims:
        labels = labels.narrow(dim, 0, 1)
    return labels


def varying_dims(classes: Tensor, dims: Sequence[int] | None = None) -> list[int]:
    """The dimensions along which an array of classes is not constant."""
    dims = range(classes.dim()) if dims is None else [d % classes.dim() for d in dims]
    return [
        dim
        for dim in dims
        if classes.size(dim) > 1 and not bool((classes.narrow(dim, 0, 1) == classes).all())
    ]


def frozen_labels(shape: Sequence[int]) -> Tensor:
    """Label 0 everywhere."""
    return torch.zeros((), dtype=torch.int64).expand(tuple(shape))

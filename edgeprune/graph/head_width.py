"""Heads that may lose width: which products of a graph these are, and both choices in one layout.

Where heads lie along one dimension with what each is wide, labels can tell either from another,
not both. So labels are propagated twice, with whole heads and with heads that stay and are
narrowed, and what the second finds is laid beside the first: a position goes with its head or
with its place in all heads.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from edgeprune.errors import StructureError
from edgeprune.graph.coupling import Coupling
from edgeprune.graph.labels import strip
from edgeprune.graph.layout import Dims, Layout, Units


def products_of(coupling: Coupling, layout: Layout, names: Collection[str]) -> frozenset[str]:
    """Products over the heads of these structures."""
    found = set()
    for node in coupling.heads_at:
        tensors = [t for n in (node, *node.all_input_nodes) for t in layout.values.get(n, ())]
        if any(name in names for dims in tensors for d in dims for name in layout.structures_in(d)):
            found.add(node.name)
    return frozenset(found)


def products_with_frozen_heads(coupling: Coupling) -> frozenset[str]:
    """Products whose heads have weights and cannot be removed."""
    sets = coupling.sets
    return frozenset(
        node.name
        for node, labels in coupling.heads_at.items()
        if sets.level(strip(labels).numpy()) < 0 and sets.anchored(strip(labels).numpy())
    )


def with_widths(layout: Layout, heads: Collection[str], narrowed: Layout) -> Layout:
    """A layout of whole heads, and beside these what only the narrowed one has.

    Raises:
        StructureError: Both lie along a dimension that is not heads times what each is wide, or
            something else can be removed only as long as heads are not narrowed.
    """
    known, found = _footprints(layout), _footprints(narrowed)
    new = [name for places, name in found.items() if places not in known]
    lost = {known[places] for places in known.keys() - found.keys()} - set(heads)
    if lost:
        raise StructureError(f"{', '.join(sorted(lost))} could no longer be removed")
    number = np.full(sum(narrowed.units.values()) + 1, -1, np.int32)
    offsets, units = dict(layout.offsets), dict(layout.units)
    for name in new:
        start, count = narrowed.offsets[name], narrowed.units[name]
        first = sum(units.values())
        number[start : start + count] = np.arange(first, first + count)
        offsets[name], units[name] = first, count
    beside = _Beside(replace(layout, offsets=offsets, units=units), frozenset(heads), number)
    names = layout.parameters.keys() | narrowed.parameters.keys()
    nodes = layout.values.keys() | narrowed.values.keys()
    return replace(
        beside.layout,
        parameters={
            n: beside.dims(layout.parameters.get(n), narrowed.parameters.get(n)) for n in names
        },
        values={n: beside.tensors(layout.values.get(n), narrowed.values.get(n)) for n in nodes},
    )


def widths_beside(layout: Layout, heads: Collection[str]) -> set[str]:
    """What lies beside some of these heads along one dimension."""
    found: set[str] = set()
    for units in (u for dims in layout.parameters.values() for u in dims):
        if units is not None and units.ndim > 1:
            names = layout.structures_in(units)
            if not set(names).isdisjoint(heads):
                found.update(names)
    return found.difference(heads)


def _footprints(layout: Layout) -> dict[frozenset[tuple[str, int, bytes]], str]:
    """Every structure by where its units are in all parameters."""
    found: dict[str, set[tuple[str, int, bytes]]] = {name: set() for name in layout.offsets}
    for parameter, dims in layout.parameters.items():
        for dim, units in enumerate(dims):
            for name in layout.structures_in(units):
                assert units is not None
                found[name].add((parameter, dim, layout.numbered(name, units).tobytes()))
    return {frozenset(places): name for name, places in found.items()}


@dataclass(frozen=True)
class _Beside:
    """Lays units of the narrowed layout, by their new numbers, beside those of whole heads."""

    layout: Layout
    heads: frozenset[str]
    number: Units

    def tensors(
        self, whole: tuple[Dims, ...] | None, narrow: tuple[Dims, ...] | None
    ) -> tuple[Dims, ...]:
        return tuple(self.dims(a, b) for a, b in zip_longest(whole or (), narrow or ()))

    def dims(self, whole: Dims | None, narrow: Dims | None) -> Dims:
        empty = (None,) * len(whole or narrow or ())
        return tuple(
            self._along(a, b) for a, b in zip(whole or empty, narrow or empty, strict=True)
        )

    def _along(self, whole: Units | None, narrow: Units | None) -> Units | None:
        new = None if narrow is None else self.number[narrow]
        if new is None or (new < 0).all():
            return whole
        if whole is None:
            return new
        there = self.layout.structures_in(whole)
        if len(there) != 1 or there[0] not in self.heads or not _is_grid(whole, new):
            raise StructureError(
                f"{', '.join(self.layout.structures_in(new))} would share a dimension with "
                f"{', '.join(there)} which is not one times the other"
            )
        return np.stack([new, whole])


def _is_grid(whole: Units, narrow: Units) -> bool:
    """Whether every head has the same positions of what it is wide, and nothing is outside."""
    heads, counts = np.unique(whole, return_counts=True)
    if heads[0] < 0 or len(set(counts.tolist())) != 1:
        return False
    parts = narrow[np.argsort(whole, kind="stable")].reshape(len(heads), -1)
    return bool((np.sort(parts, axis=1) == np.sort(parts[:1], axis=1)).all())

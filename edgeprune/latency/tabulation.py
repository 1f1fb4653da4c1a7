"""Fitted surfaces written out over the offered levels, as a latency model."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.latency.attribution import Part
from edgeprune.latency.correction import CorrectedSurface
from edgeprune.latency.model import Joint, LatencyModel
from edgeprune.latency.projection import Terms, project

Offered = Mapping[str, tuple[int, ...]]


class Tabulation:
    """Collects the terms of all parts; structures that are not offered stay dense."""

    def __init__(self, offered: Offered, full: Mapping[str, int]) -> None:
        """Start with nothing but zeros over the offered levels."""
        self.offered, self.full = offered, full
        self._place = {name: place for place, name in enumerate(full)}
        self._sum = Terms(unary={name: dict.fromkeys(ls, 0.0) for name, ls in offered.items()})
        self._approximated = Terms()
        self._joint: list[Joint] = []
        # Parts of one kind differ in nothing but the names of their structures.
        self._known: dict[Any, Terms] = {}

    def add(self, part: Part, surface: CorrectedSurface) -> None:
        """Add a part whose time is the surface."""
        names = tuple(name for name in part.bucket if name in self.offered)
        fixed = part.sizes({**self.full, **dict.fromkeys(names, 0)})
        counts = [[dict(axis.counts).get(name, 0) for axis in part.axes] for name in names]
        levels = [self.offered[name] for name in names]
        key = (part.kind, tuple(fixed), str(counts), tuple(levels))
        if key not in self._known:
            self._known[key] = self._project(surface, fixed, counts, levels)
        terms = self._known[key]
        self._include(self._sum, terms, names)
        if len(names) > 2:
            self._include(self._approximated, terms, names)
            self._joint.append(self._exact(part, names, surface))

    def add_emptied(self, name: str, us: float) -> None:
        """Add what emptying a structure leaves behind elsewhere."""
        self._sum.unary[name][0] += float(us) / 1e3

    @property
    def error_us(self) -> float:
        """Typical error of the pairwise form, over plans drawn evenly."""
        return 1e3 * self._sum.error

    def model(self, correction: tuple[float, float, float]) -> LatencyModel:
        """The latency model of all parts added."""
        approximated = self._approximated
        return LatencyModel(
            base_ms=self._sum.constant,
            unary_ms=self._sum.unary,
            pair_ms=self._sum.pairs,
            full=dict(self.full),
            correction=correction,
            joint=tuple(self._joint),
            approximation=(approximated.constant, approximated.unary, approximated.pairs),
        )

    def _project(
        self,
        surface: CorrectedSurface,
        fixed: list[int],
        counts: list[list[int]],
        levels: list[tuple[int, ...]],
    ) -> Terms:
        """Terms of a part, with its structures named by their place."""
        weights = np.array(counts, np.int64).reshape(len(levels), len(fixed))
        start = np.array(fixed, np.int64)

        def time_ms(points: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            sizes = start + points @ weights
            return surface.predict(sizes) / 1e3

        # Structures that share a size with others are residual streams, seldom cut far.
        shared = [str(i) for i in range(len(levels)) if _shares_an_axis(weights, i)]
        return project(time_ms, {str(i): offered for i, offered in enumerate(levels)}, shared)

    def _include(self, total: Terms, terms: Terms, names: tuple[str, ...]) -> None:
        total.constant += terms.constant
        # Errors of parts alike point the same way.
        total.error += terms.error
        for place, times in terms.unary.items():
            mine = total.unary.setdefault(names[int(place)], dict.fromkeys(times, 0.0))
            for level, ms in times.items():
                mine[level] += ms
        for (i, j), cells in terms.pairs.items():
            first, second = names[int(i)], names[int(j)]
            if self._place[first] > self._place[second]:
                first, second = second, first
                cells = {(y, x): ms for (x, y), ms in cells.items()}
            pair = total.pairs.setdefault((first, second), dict.fromkeys(cells, 0.0))
            for cell, ms in cells.items():
                pair[cell] += ms

    def _exact(self, part: Part, names: tuple[str, ...], surface: CorrectedSurface) -> Joint:
        """The part's time by its sizes, over all sizes that the offered levels can give."""
        axes, reachable = [], []
        for axis in part.axes:
            counts = {name: count for name, count in axis.counts if name in names}
            dense = {name: level for name, level in self.full.items() if name not in names}
            fixed = axis.size({**dict.fromkeys(names, 0), **dense})
            sizes = {fixed}
            for name, count in counts.items():
                sizes = {size + count * level for size in sizes for level in self.offered[name]}
            axes.append((fixed, counts))
            reachable.append(sorted(sizes))
        cells = list(product(*reachable))
        us = surface.predict(np.array(cells, np.int64))
        ms = {cell: float(value) / 1e3 for cell, value in zip(cells, us, strict=True)}
        return Joint(tuple(axes), ms)


def _shares_an_axis(counts: npt.NDArray[np.int64], place: int) -> bool:
    mine = counts[place] > 0
    return bool((counts[:, mine] > 0).sum(axis=0).max(initial=0) > 1)

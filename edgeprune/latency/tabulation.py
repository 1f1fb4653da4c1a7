"""Fitted surfaces written out over the offered choices, as a latency model."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.formats import DENSE, Formats
from edgeprune.graph.choices import Choices
from edgeprune.latency.attribution import Part
from edgeprune.latency.axis import Axis
from edgeprune.latency.conversions import Conversion, Conversions, SiteFormats, average_form
from edgeprune.latency.correction import CorrectedSurface
from edgeprune.latency.handover import Handover, HandoverKind, Handovers, predict_us
from edgeprune.latency.model import Joint, LatencyModel
from edgeprune.latency.projection import Terms, project
from edgeprune.latency.surface import Surface

Surfaces = Mapping[str, CorrectedSurface]
Points = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Of a part that more than two structures decide; one of more is known by its pairwise form alone.
_MOST_CELLS = 50_000


class Tabulation:
    """Collects the terms of all parts; structures and sites that are not offered stay dense."""

    def __init__(self, choices: Choices, full: Mapping[str, int], overhead_us: float = 0.0) -> None:
        """Start with the overhead of an inference and zeros over what is offered."""
        self.choices = choices
        self.full = {**full, **dict.fromkeys(choices.sites, 0)}
        offered = choices.offered
        self._sum = Terms(
            overhead_us / 1e3, {name: dict.fromkeys(ls, 0.0) for name, ls in offered.items()}
        )
        self._approximated = Terms()
        self._joint: list[Joint] = []
        self._sites: dict[str, SiteFormats] = {}
        self._conversions: list[Conversion] = []
        # Parts of one kind differ in nothing but the names of their structures and sites.
        self._known: dict[Any, Terms] = {}

    def add(self, part: Part, surfaces: Surfaces) -> None:
        """Add a part whose time is the surface of the family that its layers have."""
        offered = self.choices.offered
        names = tuple(name for name in (*part.structures, part.bucket[1]) if name in offered)
        time_ms = _time_ms(part, surfaces, names, self.choices, self.full)
        key = (part.kind, self._numbers(part, names))
        if key not in self._known:
            shared = [str(i) for i, name in enumerate(names) if _shares_an_axis(part, name)]
            levels = {str(i): offered[name] for i, name in enumerate(names)}
            named = {str(i) for i, name in enumerate(names) if name in self.choices.sites}
            self._known[key] = project(time_ms, levels, shared, named)
        terms = self._known[key].named(names)
        self._sum.add(terms)
        joint = self._exact(part, names, time_ms) if len(names) > 2 else None
        if joint is not None:
            self._approximated.add(terms)
            self._joint.append(joint)

    def add_handovers(self, handovers: Handovers, surfaces: Mapping[HandoverKind, Surface]) -> None:
        """Add what converting between sites takes."""
        options = self.choices.options
        self._sites = {
            name: SiteFormats(
                handover.source.name if handover.source is not None else "",
                self._folded(handovers.sides.get(name, ()), self.choices.levels),
                tuple(option[0].family for option in options.get(name, ())) or (DENSE.family,),
            )
            for name, handover in handovers.by_target.items()
        }
        families = sorted({DENSE.family, *(f for s in self._sites.values() for f in s.families)})
        for handover in handovers.by_target.values():
            part = self._conversion(handover, families, surfaces)
            self._sum.add(part.average)
            self._conversions.append(part)

    def _conversion(
        self,
        handover: Handover,
        families: Sequence[str],
        surfaces: Mapping[HandoverKind, Surface],
    ) -> Conversion:
        axes = self._folded(handover.axes, self.choices.levels)
        elements = {1}
        for axis in axes:
            sizes = {sizes[0] for sizes in _reachable((axis,), self.choices.levels) or {}}
            elements = {count * size for count in elements for size in sizes}
        ordered = sorted(elements)
        ms: dict[tuple[int, str, str], float] = {}
        mine = dict.fromkeys(self._sites[handover.target.name].families)
        for before, after in product(families, mine):
            us = predict_us(surfaces, (before, after, len(axes), handover.joined), ordered)
            ms |= {(n, before, after): float(t) / 1e3 for n, t in zip(ordered, us, strict=True)}
        part = Conversion(handover.target.name, axes, ms, Terms())
        return replace(part, average=average_form(part, self._sites, self.choices.offered))

    def _folded(self, axes: Iterable[Axis], names: Collection[str]) -> tuple[Axis, ...]:
        """Axes over some structures; the others are all there."""
        rest = {**self.full, **dict.fromkeys(names, 0)}
        return tuple(
            Axis(axis.size(rest), tuple(pair for pair in axis.counts if pair[0] in names))
            for axis in axes
        )

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
            conversions=Conversions(self._sites, tuple(self._conversions)),
            approximation=(approximated.constant, approximated.unary, approximated.pairs),
        )

    def _numbers(self, part: Part, names: tuple[str, ...]) -> str:
        """What a part's time depends on besides its kind, with names by their place."""
        place = {name: str(i) for i, name in enumerate(names)}
        sides = [axis for weight in part.weights for axis in weight.sides]
        axes = [
            (axis.fixed, sorted((place[name], count) for name, count in axis.counts))
            for axis in self._folded((*part.axes, *sides), names)
        ]
        options = [
            str(self.choices.options.get(name, self.choices.offered[name])) for name in names
        ]
        needs = [place[name] for name in part.needs if name in place]
        return str((axes, needs, options))

    def _exact(self, part: Part, names: tuple[str, ...], time_ms: Any) -> Joint | None:
        """A part's time by its sizes and its site's option; None where there are too many."""
        offered = {name: self.choices.offered[name] for name in names}
        sites = [Axis(0, ((name, 1),)) for name in names if name in self.choices.sites]
        axes = (*self._folded(part.axes, names), *sites)
        cells = _reachable(axes, offered)
        if cells is None:
            return None
        points = [[levels.get(n, self.full[n]) for n in names] for levels in cells.values()]
        ms = time_ms(np.array(points, np.int64).reshape(len(cells), len(names)))
        return Joint(axes, {cell: float(v) for cell, v in zip(cells, ms, strict=True)})


def _reachable(
    axes: Sequence[Axis], offered: Mapping[str, tuple[int, ...]]
) -> dict[tuple[int, ...], dict[str, int]] | None:
    """All sizes of some axes that levels can give, each with levels that give it."""
    found: dict[tuple[int, ...], dict[str, int]] = {tuple(axis.fixed for axis in axes): {}}
    for name in dict.fromkeys(name for axis in axes for name in axis.names):
        units = [axis.per_unit(name) for axis in axes]
        found = {
            tuple(size + level * unit for size, unit in zip(sizes, units, strict=True)): {
                **levels,
                name: level,
            }
            for sizes, levels in found.items()
            for level in offered[name]
        }
        if len(found) > _MOST_CELLS:
            return None
    return found


def _time_ms(
    part: Part,
    surfaces: Surfaces,
    names: tuple[str, ...],
    choices: Choices,
    full: Mapping[str, int],
) -> Any:
    """The time of a part as a function of points (points, names), in milliseconds."""
    site = part.bucket[1] if part.bucket[1] in names else ""

    def at(points: Points) -> Floats:
        places = points[:, names.index(site)] if site else np.zeros(len(points), np.int64)
        result = np.zeros(len(points))
        for place in np.unique(places).tolist():
            formats: Formats = choices.formats_of({site: place}) if site else {}
            chosen = places == place
            sizes = [
                part.sizes({**full, **dict(zip(names, row, strict=True))}, formats)
                for row in points[chosen].tolist()
            ]
            surface = surfaces[part.family(formats)]
            matrix = np.array(sizes, np.int64).reshape(int(chosen.sum()), -1)
            result[chosen] = surface.predict(matrix) / 1e3
        return result

    return at


def _shares_an_axis(part: Part, name: str) -> bool:
    """Whether a structure's size is a sum with others: a residual stream, seldom cut far."""
    return any(len(axis.counts) > 1 and name in axis.names for axis in part.axes)

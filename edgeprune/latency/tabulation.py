"""Fitted surfaces written out over the offered choices, as a latency model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.formats import Formats
from edgeprune.graph.choices import Choices
from edgeprune.latency.attribution import Axis, Part
from edgeprune.latency.correction import CorrectedSurface
from edgeprune.latency.handover import Handover, HandoverKind, handover_time, same_formats
from edgeprune.latency.model import Bypass, Joint, LatencyModel
from edgeprune.latency.projection import Terms, project
from edgeprune.latency.surface import Surface

Surfaces = Mapping[str, CorrectedSurface]
Points = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Tabulation:
    """Collects the terms of all parts; structures and sites that are not offered stay dense."""

    def __init__(self, choices: Choices, full: Mapping[str, int]) -> None:
        """Start with nothing but zeros over what is offered."""
        self.choices = choices
        self.full = {**full, **dict.fromkeys(choices.sites, 0)}
        offered = choices.offered
        self._sum = Terms(unary={name: dict.fromkeys(ls, 0.0) for name, ls in offered.items()})
        self._approximated = Terms()
        self._joint: list[Joint] = []
        self._bypasses: dict[str, Bypass] = {}
        # Parts of one kind differ in nothing but the names of their structures and sites.
        self._known: dict[Any, Terms] = {}

    def add(self, part: Part, surfaces: Surfaces) -> None:
        """Add a part whose time is the surface of the family that its layers have."""
        offered = self.choices.offered
        structures, site = part.bucket
        names = tuple(name for name in (*structures, site) if name in offered)
        time_ms = _time_ms(part, surfaces, names, self.choices, self.full)
        key = (part.kind, self._numbers(part, names))
        if key not in self._known:
            shared = [str(i) for i, name in enumerate(names) if _shares_an_axis(part, name)]
            levels = {str(i): offered[name] for i, name in enumerate(names)}
            named = {str(i) for i, name in enumerate(names) if name in self.choices.sites}
            self._known[key] = project(time_ms, levels, shared, named)
        terms = self._known[key].named(names)
        self._sum.add(terms)
        if len(names) > 2:
            self._approximated.add(terms)
            self._joint.append(self._exact(part.axes, names, time_ms))

    def add_handover(self, handover: Handover, surfaces: Mapping[HandoverKind, Surface]) -> None:
        """Add what converting between two sites takes."""
        offered = self.choices.offered
        sites = (handover.source, handover.target)
        wanted = (*handover.structures, *(site.name for site in sites if site is not None))
        names = tuple(name for name in wanted if name in offered)
        time_ms = handover_time(handover, surfaces, names, self.choices, self.full)
        terms = project(
            time_ms,
            {name: offered[name] for name in names},
            named={name for name in names if name in self.choices.sites},
            weight=same_formats(handover, names, self.choices, self.full),
        )
        self._sum.add(terms)
        if len(names) > 2:
            joint = self._exact(handover.axes, names, time_ms)
            self._joint.append(replace(joint, approximation=terms))

    def add_bypass(self, handover: Handover, sides: Sequence[Axis]) -> None:
        """Let the format of a site make no difference where a side of its weights is empty."""
        site = handover.target.name
        if site in self.choices.options:
            self._bypasses[site] = Bypass(
                handover.source.name if handover.source is not None else "",
                tuple((side.fixed, dict(side.counts)) for side in sides),
                tuple(option[0].family for option in self.choices.options[site]),
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
            bypasses=self._bypasses,
            approximation=(approximated.constant, approximated.unary, approximated.pairs),
        )

    def _numbers(self, part: Part, names: tuple[str, ...]) -> str:
        """What a part's time depends on besides its kind, with names by their place."""
        place = {name: str(i) for i, name in enumerate(names)}
        sides = [axis for weight in part.weights for axis in weight.sides]
        axes = [
            (axis.size({**self.full, **dict.fromkeys(names, 0)}), self._counts(axis.counts, place))
            for axis in (*part.axes, *sides)
        ]
        options = [
            str(self.choices.options.get(name, self.choices.offered[name])) for name in names
        ]
        return str((axes, options))

    def _counts(
        self, counts: tuple[tuple[str, int], ...], place: Mapping[str, str]
    ) -> list[tuple[str, int]]:
        return sorted((place[name], count) for name, count in counts if name in place)

    def _exact(self, sizes_of: Sequence[Axis], names: tuple[str, ...], time_ms: Any) -> Joint:
        """A time by sizes and sites' options, over all that can be given."""
        offered = self.choices.offered
        axes, reachable = [], []
        for axis in sizes_of:
            counts = {name: count for name, count in axis.counts if name in names}
            fixed = axis.size({**self.full, **dict.fromkeys(names, 0)})
            sizes = {fixed: dict.fromkeys(counts, 0)}
            for name, count in counts.items():
                sizes = {
                    size + count * level: {**levels, name: level}
                    for size, levels in sizes.items()
                    for level in offered[name]
                }
            axes.append((fixed, counts))
            reachable.append(sizes)
        for site in [name for name in names if name in self.choices.sites]:
            axes.append((0, {site: 1}))
            reachable.append({place: {site: place} for place in offered[site]})
        cells = list(product(*reachable))
        points = []
        for cell in cells:
            levels: dict[str, int] = {}
            for size, found in zip(cell, reachable, strict=True):
                levels.update(found[size])
            points.append([levels.get(name, self.full[name]) for name in names])
        ms = time_ms(np.array(points, np.int64).reshape(len(cells), len(names)))
        return Joint(tuple(axes), {cell: float(v) for cell, v in zip(cells, ms, strict=True)})


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
    return any(len(axis.counts) > 1 and name in dict(axis.counts) for axis in part.axes)

"""Conversions between formats in a latency model: their exact times, and pairwise forms of them.

A conversion depends on the formats of two sites and on the structures between them, which is more
than a pair. It is small, so a search takes it in a pairwise form and is held to the exact time.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from edgeprune.formats import DENSE
from edgeprune.latency.axis import Axis
from edgeprune.latency.projection import Terms, project

Levels = Mapping[str, int]

# Weight of a change of formats in the form that is right on average: good plans have few.
_CHANGED = 0.03


@dataclass(frozen=True)
class SiteFormats:
    """What conversions need to know of a site.

    Attributes:
        source: The site whose values it reads; empty where there is none.
        sides: Sizes of its weights; where one is empty, the site hands on what it reads.
        families: The family of formats of each of its options.
    """

    source: str
    sides: tuple[Axis, ...]
    families: tuple[str, ...]

    def gone(self, levels: Levels) -> bool:
        """Whether nothing is left of the site."""
        return any(side.size(levels) == 0 for side in self.sides)


@dataclass(frozen=True)
class Conversion:
    """What a site reads is converted for it.

    Attributes:
        target: The site.
        axes: Sizes of the tensor.
        ms: Time by elements and the families of source and target.
        average: Pairwise form that is right on average.
    """

    target: str
    axes: tuple[Axis, ...]
    ms: dict[tuple[int, str, str], float]
    average: Terms

    def elements(self, levels: Levels) -> int:
        """How many values are converted."""
        return math.prod(axis.size(levels) for axis in self.axes)

    @property
    def structures(self) -> tuple[str, ...]:
        """The structures that decide the number of elements."""
        return tuple(dict.fromkeys(name for axis in self.axes for name in axis.names))


@dataclass(frozen=True)
class Conversions:
    """All conversions of a network.

    Attributes:
        sites: By name; those that are not offered have the one option of dense layers.
        parts: The conversions.
    """

    sites: Mapping[str, SiteFormats]
    parts: tuple[Conversion, ...]

    def total_ms(self, levels: Levels) -> float:
        """Exact time of all conversions of a plan."""
        return sum(self._ms(part, levels) for part in self.parts)

    @cached_property
    def average(self) -> Terms:
        """The pairwise form that is right on average over plans that empty nothing."""
        total = Terms()
        for part in self.parts:
            total.add(part.average)
        return total

    def near(self, plan: Levels, offered: Mapping[str, tuple[int, ...]]) -> Terms:
        """A pairwise form around a plan; sites that the plan empties stay so.

        Args:
            plan: A level or option of each structure and site.
            offered: Those that the form shall know.
        """
        total = Terms()
        for part in self.parts:
            if not self.sites[part.target].gone(plan):
                time_ms = partial(self._ms, part)
                total.add(_pairwise(part, self.sites, offered, plan, time_ms))
        return total

    def _ms(self, part: Conversion, levels: Levels) -> float:
        target = self.sites[part.target]
        if target.gone(levels):
            return 0.0
        source = target.source
        while source and self.sites[source].gone(levels):
            source = self.sites[source].source
        before = _family(self.sites, source, levels)
        return part.ms[part.elements(levels), before, _family(self.sites, part.target, levels)]


def _family(sites: Mapping[str, SiteFormats], name: str, levels: Levels) -> str:
    if not name:
        return DENSE.family
    families = sites[name].families
    return families[levels[name] if len(families) > 1 else 0]


def average_form(
    part: Conversion, sites: Mapping[str, SiteFormats], offered: Mapping[str, tuple[int, ...]]
) -> Terms:
    """The pairwise form of a conversion that is right on average, where nothing is emptied."""

    def time_ms(levels: Levels) -> float:
        target, source = part.target, sites[part.target].source
        before, after = (_family(sites, name, levels) for name in (source, target))
        return part.ms[part.elements(levels), before, after]

    return _pairwise(part, sites, offered, None, time_ms)


def _pairwise(
    part: Conversion,
    sites: Mapping[str, SiteFormats],
    offered: Mapping[str, tuple[int, ...]],
    plan: Levels | None,
    time_ms: Callable[[Levels], float],
) -> Terms:
    """The time of a conversion as terms of its structures and sites.

    Formats enter by their families, of which there are few, and the terms are written out over the
    options behind. Without a plan the form is for networks of which nothing is emptied.

    Args:
        part: The conversion.
        sites: All sites.
        offered: Levels and options to write terms for.
        plan: What the form is to be right around, if anything.
        time_ms: Of a plan.
    """
    chosen = dict(plan or {})
    two = [name for name in (sites[part.target].source, part.target) if name in offered]
    options = {name: _first_options(sites[name].families, offered[name]) for name in two}
    structures = {name: offered[name] for name in part.structures if name in offered}
    levels = {**structures, **{name: tuple(range(len(options[name]))) for name in two}}
    names = list(levels)
    places = {name: list(options[name].values()) for name in two}

    def plans(points: npt.NDArray[np.int64]) -> Iterator[dict[str, int]]:
        for point in points.tolist():
            levels = dict(zip(names, point, strict=True))
            yield {**chosen, **levels, **{n: places[n][levels[n]] for n in two}}

    def at(points: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return np.array([time_ms(levels) for levels in plans(points)])

    def weight(points: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        same = [
            len({_family(sites, name, levels) for name in two}) < len(two)
            for levels in plans(points)
        ]
        return np.where(np.array(same) | (len(two) < 2), 1.0, _CHANGED)

    around = None
    if plan is not None:
        around = {name: plan[name] for name in structures}
        for name in two:
            around[name] = list(options[name]).index(sites[name].families[plan[name]])
    terms = project(at, levels, named=two, around=around, weight=weight if plan is None else None)
    return _by_option(terms, {n: (list(options[n]), sites[n].families, offered[n]) for n in two})


def _first_options(families: tuple[str, ...], offered: tuple[int, ...]) -> dict[str, int]:
    """The first offered option of every family."""
    return {families[place]: place for place in reversed(offered)}


def _by_option(
    terms: Terms, sites: Mapping[str, tuple[list[str], tuple[str, ...], tuple[int, ...]]]
) -> Terms:
    """Terms of families written out over the options of the sites."""

    def options(name: str, level: int) -> list[int]:
        if name not in sites:
            return [level]
        order, families, offered = sites[name]
        return [place for place in offered if families[place] == order[level]]

    unary = {
        name: {place: ms for level, ms in times.items() for place in options(name, level)}
        for name, times in terms.unary.items()
    }
    pairs = {
        (a, b): {
            (x, y): ms for (i, j), ms in cells.items() for x in options(a, i) for y in options(b, j)
        }
        for (a, b), cells in terms.pairs.items()
    }
    return Terms(terms.constant, unary, pairs, terms.error)

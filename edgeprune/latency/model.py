"""The latency of a plan: a sum over structures and pairs, corrected to whole-model times."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import TableError
from edgeprune.latency.axis import Axis
from edgeprune.latency.conversions import Conversion, Conversions, SiteFormats
from edgeprune.latency.projection import Terms

FORMAT = 4

Unary = dict[str, dict[int, float]]
Pairs = dict[tuple[str, str], dict[tuple[int, int], float]]


@dataclass(frozen=True)
class Joint:
    """The exact time of a part that more than two structures decide.

    Attributes:
        axes: The sizes that decide the time.
        ms: Time by the sizes.
    """

    axes: tuple[Axis, ...]
    ms: dict[tuple[int, ...], float]

    @cached_property
    def names(self) -> frozenset[str]:
        """The structures and sites that decide it."""
        return frozenset(name for axis in self.axes for name in axis.names)

    def at(self, levels: Mapping[str, int]) -> float:
        """The time at ``levels``."""
        return self.ms[tuple(axis.size(levels) for axis in self.axes)]

    def least(self, free: Collection[str]) -> "Joint":
        """The least time over all sizes that other structures than ``free`` have a part in."""
        kept = [place for place, axis in enumerate(self.axes) if set(axis.names) <= set(free)]
        ms: dict[tuple[int, ...], float] = {}
        for sizes, time in self.ms.items():
            key = tuple(sizes[place] for place in kept)
            ms[key] = min(time, ms.get(key, time))
        return Joint(tuple(self.axes[place] for place in kept), ms)

    def over(
        self, free: Sequence[str], points: npt.NDArray[np.int64], levels: Mapping[str, int]
    ) -> npt.NDArray[np.float64]:
        """The times at points, shape (points, free), of ``free`` names; others as in ``levels``."""
        fixed = {name: 0 if name in free else levels[name] for name in self.names}
        slopes = [[axis.per_unit(name) for name in free] for axis in self.axes]
        rest = [axis.size(fixed) for axis in self.axes]
        sizes = points @ np.array(slopes, np.int64).reshape(len(self.axes), len(free)).T + rest
        return np.array([self.ms[tuple(row)] for row in sizes.tolist()])


@dataclass(frozen=True)
class LatencyModel:
    """Times of a network's parts on one device, in milliseconds.

    ``sum_ms`` is what a search adds up; ``total_ms`` is what a whole model takes, a monotone
    quadratic of the sum, because large models run slower than their parts say (caches). Parts
    that more than two structures decide enter ``sum_ms`` by their best pairwise approximation
    and ``total_ms`` exactly.

    Attributes:
        base_ms: What no structure changes.
        unary_ms: By structure and level.
        pair_ms: By two structures that meet in a layer, and their two levels.
        full: The dense level of every structure.
        correction: ``(c, a, b)`` of ``total = c + a * sum + b * sum**2``.
        figures: How well the model explains the variants it was fitted to.
        joint: Parts that more than two structures decide.
        approximation: What ``base_ms``, ``unary_ms`` and ``pair_ms`` hold for those parts.
        measured_dense_ms: Time of the dense model as measured, where it was.
        conversions: Between formats; the sums hold their average form.
        forced: Levels that every plan has; what the fastest plan is chosen under.
    """

    base_ms: float
    unary_ms: Unary
    pair_ms: Pairs
    full: dict[str, int]
    correction: tuple[float, float, float] = (0.0, 1.0, 0.0)
    figures: dict[str, Any] = field(default_factory=dict)
    joint: tuple[Joint, ...] = ()
    approximation: tuple[float, Unary, Pairs] = (0.0, {}, {})
    measured_dense_ms: float | None = None
    conversions: Conversions = field(default_factory=lambda: Conversions({}, ()))
    forced: Mapping[str, int] = field(default_factory=dict)

    def sum_ms(self, levels: Mapping[str, int]) -> float:
        """Sum of base, unary and pair times; structures left out are dense.

        Raises:
            TableError: A structure or level is not in the model.
        """
        chosen = {**self.full, **levels}
        return _add_up(Terms(self.base_ms, self.unary_ms, self.pair_ms), chosen)

    def exact_sum_ms(self, levels: Mapping[str, int]) -> float:
        """Like ``sum_ms``, with the parts that more than two structures decide exact."""
        chosen = {**self.full, **levels}
        total = self.sum_ms(chosen)
        if not self.joint and not self.conversions.parts:
            return total
        total -= _add_up(self.approximated, chosen)
        total += self.conversions.total_ms(chosen) - self.conversions.average.at(chosen)
        return total + sum(part.at(chosen) for part in self.joint)

    def total_ms(self, levels: Mapping[str, int]) -> float:
        """Time of the whole model at ``levels``."""
        return self.corrected_ms(self.exact_sum_ms(levels))

    def corrected_ms(self, sum_ms: float) -> float:
        """Time of a whole model whose parts add up to ``sum_ms``."""
        c, a, b = self.correction
        return c + a * sum_ms + b * sum_ms * sum_ms

    def sum_budget(self, total_ms: float) -> float:
        """The sum whose corrected time is ``total_ms``; below zero where none is that fast."""
        c, a, b = self.correction
        if abs(b) < 1e-12:
            return (total_ms - c) / a
        under = a * a - 4 * b * (c - total_ms)
        if under < 0:  # beyond the top of a concave correction: as far as it goes
            return -a / (2 * b)
        # The rising branch, in the form that does not cancel for small b.
        return 2 * (total_ms - c) / (a + math.sqrt(under))

    @cached_property
    def terms(self) -> Terms:
        """``sum_ms`` without the approximation of the joint parts."""
        terms = Terms(self.base_ms, self.unary_ms, self.pair_ms).copy()
        terms.add(self.approximated, -1.0)
        return terms

    @property
    def approximated(self) -> Terms:
        """The approximation of the joint parts in ``sum_ms``."""
        return Terms(*self.approximation)

    @cached_property
    def dense_ms(self) -> float:
        """Time of the dense model; speed-ups refer to it, so measured rather than predicted."""
        return self.measured_dense_ms or self.total_ms({})

    @cached_property
    def fastest_levels(self) -> dict[str, int]:
        """Levels of a fastest plan: descent over one structure at a time from two starts."""
        starts = [
            {**self.full, **self.forced},
            {name: min(levels) for name, levels in self._open.items()},
        ]
        return min((self._descend(start) for start in starts), key=self.exact_sum_ms)

    @cached_property
    def fastest_ms(self) -> float:
        """Time of the fastest plan found."""
        return self.total_ms(self.fastest_levels)

    @cached_property
    def prunable_share(self) -> float:
        """Share of the dense model's time in layers whose size some structure decides."""
        never = self.base_ms - self.approximation[0] - self.conversions.average.constant
        return 1.0 - never / self.exact_sum_ms({})

    @cached_property
    def offered(self) -> dict[str, tuple[int, ...]]:
        """Levels of each structure, and places of each site's options, that have a time."""
        choices: dict[str, set[int]] = {name: {level} for name, level in self.full.items()}
        for name, times in self.unary_ms.items():
            choices[name].update(times)
        for (first, second), cells in self.pair_ms.items():
            choices[first].update(i for i, _ in cells)
            choices[second].update(j for _, j in cells)
        return {name: tuple(sorted(levels)) for name, levels in choices.items()}

    @property
    def _open(self) -> dict[str, tuple[int, ...]]:
        """``offered``, without what is forced to be otherwise."""
        return {
            name: (self.forced[name],) if name in self.forced else levels
            for name, levels in self.offered.items()
        }

    def _descend(self, start: dict[str, int]) -> dict[str, int]:
        levels, choices = {**self.full, **start}, self._open
        cost = self.exact_sum_ms(levels)
        while True:
            before = cost
            for name, offered in choices.items():
                for level in offered:
                    moved = self.exact_sum_ms({**levels, name: level})
                    if moved < cost - 1e-12:
                        cost, levels = moved, {**levels, name: level}
            if cost >= before - 1e-12:
                return levels

    def to_json(self) -> str:
        """The model as JSON text."""
        return json.dumps(
            {
                "format": FORMAT,
                "terms": _terms_to_json(Terms(self.base_ms, self.unary_ms, self.pair_ms)),
                "approximation": _terms_to_json(self.approximated),
                "joint": [
                    {
                        "axes": _axes_to_json(part.axes),
                        "cells": [[*sizes, ms] for sizes, ms in part.ms.items()],
                    }
                    for part in self.joint
                ],
                "full": self.full,
                "correction": list(self.correction),
                "figures": self.figures,
                "measured_dense_ms": self.measured_dense_ms,
                "sites": [
                    [name, site.source, _axes_to_json(site.sides), site.families]
                    for name, site in self.conversions.sites.items()
                ],
                "conversions": [
                    {
                        "target": part.target,
                        "axes": _axes_to_json(part.axes),
                        "cells": [[*key, ms] for key, ms in part.ms.items()],
                        "average": _terms_to_json(part.average),
                    }
                    for part in self.conversions.parts
                ],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "LatencyModel":
        """The model that ``to_json`` wrote.

        Raises:
            TableError: It is of another format.
        """
        fields = json.loads(text)
        if fields.get("format") != FORMAT:
            raise TableError(
                f"a latency model of format {fields.get('format')!r} cannot be read; profile again"
            )
        c, a, b = fields["correction"]
        terms, approximation = (_terms_from_json(fields[key]) for key in ("terms", "approximation"))
        return cls(
            base_ms=terms.constant,
            unary_ms=terms.unary,
            pair_ms=terms.pairs,
            full=fields["full"],
            correction=(c, a, b),
            figures=fields["figures"],
            conversions=_conversions_from_json(fields),
            joint=tuple(
                Joint(
                    _axes_from_json(part["axes"]),
                    {tuple(sizes): ms for *sizes, ms in part["cells"]},
                )
                for part in fields["joint"]
            ),
            approximation=(approximation.constant, approximation.unary, approximation.pairs),
            measured_dense_ms=fields["measured_dense_ms"],
        )


def _axes_to_json(axes: Sequence[Axis]) -> list[Any]:
    return [[axis.fixed, axis.counts] for axis in axes]


def _axes_from_json(axes: Sequence[Any]) -> tuple[Axis, ...]:
    return tuple(Axis(fixed, tuple((name, n) for name, n in counts)) for fixed, counts in axes)


def _add_up(terms: Terms, levels: Mapping[str, int]) -> float:
    try:
        return terms.at(levels)
    except KeyError as error:
        raise TableError(
            f"the latency model has no time for level {error.args[0]}: profile again with it"
        ) from error


def _conversions_from_json(fields: Mapping[str, Any]) -> Conversions:
    sites = {
        name: SiteFormats(source, _axes_from_json(sides), tuple(families))
        for name, source, sides, families in fields["sites"]
    }
    parts = tuple(
        Conversion(
            part["target"],
            _axes_from_json(part["axes"]),
            {(elements, a, b): ms for elements, a, b, ms in part["cells"]},
            _terms_from_json(part["average"]),
        )
        for part in fields["conversions"]
    )
    return Conversions(sites, parts)


def _terms_to_json(terms: Terms) -> dict[str, Any]:
    return {
        "constant_ms": terms.constant,
        "unary_ms": {name: list(times.items()) for name, times in terms.unary.items()},
        "pair_ms": [
            {"first": a, "second": b, "cells": [[i, j, ms] for (i, j), ms in cells.items()]}
            for (a, b), cells in terms.pairs.items()
        ],
    }


def _terms_from_json(fields: Mapping[str, Any]) -> Terms:
    unary = {name: dict(times) for name, times in fields["unary_ms"].items()}
    pairs = {
        (pair["first"], pair["second"]): {(i, j): ms for i, j, ms in pair["cells"]}
        for pair in fields["pair_ms"]
    }
    return Terms(fields["constant_ms"], unary, pairs)

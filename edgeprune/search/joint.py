"""Allocation problems in which some times depend on more than two groups at once.

The time of a layer depends on its inputs, its outputs and its format, and the inputs of a layer in
a residual stream on several structures. A pairwise form of that is right on average and wrong by
some percent for any plan. Fixing few groups, here called *hubs*, leaves parts of at most two free
groups, and those are pairwise exactly. Conversions between formats are many and small: they are
taken in a pairwise form all the same, and only the times of plans are exact.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.latency.conversions import Conversions
from edgeprune.latency.model import Joint
from edgeprune.latency.projection import Terms, project
from edgeprune.search.problem import Group, Pair, Problem
from edgeprune.search.scaling import scaled

Levels = Mapping[str, int]


@dataclass(frozen=True, eq=False)
class JointProblem:
    """A pairwise problem and parts beyond it.

    Attributes:
        pairwise: All groups, the times that one or two of them decide, and the average form of
            conversions.
        parts: Times that more groups decide.
        average: Like ``pairwise``, with all parts in a pairwise form that is right on average.
        named: Groups whose levels are names of something and not sizes.
        conversions: Between formats: small, and known exactly.
        fastest: The fastest plan that is known.
    """

    pairwise: Problem
    parts: tuple[Joint, ...] = ()
    average: Problem | None = None
    named: frozenset[str] = frozenset()
    conversions: Conversions = field(default_factory=lambda: Conversions({}, ()))
    fastest: Levels | None = None

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups."""
        return self.pairwise.groups

    def evaluate(self, levels: Levels) -> tuple[float, float]:
        """Distortion and time in ms of a plan; the time is exact."""
        distortion, time_ms = self.pairwise.evaluate(levels)
        time_ms += self.conversions.total_ms(levels) - self.conversions.average.at(levels)
        return distortion, time_ms + sum(part.at(levels) for part in self.parts)

    def take(self, kept: Sequence[npt.NDArray[Any]]) -> "JointProblem":
        """The same problem with only the alternatives ``kept[group]`` of each group."""
        average = None if self.average is None else self.average.take(kept)
        return replace(self, pairwise=self.pairwise.take(kept), average=average, fastest=None)

    def only(self, fixed: Levels) -> list[npt.NDArray[np.intp]]:
        """Per group the places of all its levels, or of the one that it is fixed at."""
        return [
            np.array([group.levels.index(fixed[group.name])])
            if group.name in fixed
            else np.arange(len(group.levels))
            for group in self.groups
        ]

    def restricted(self, forced: Levels) -> "JointProblem":
        """The same problem in which some groups have one level only, the fastest plan's, too."""
        return replace(self.take(self.only(forced)), fastest=self.fastest) if forced else self

    def scaled(self, removal: float, power: float) -> "JointProblem":
        """Another reading of the distortions, see `search.scaling`."""
        average = None if self.average is None else scaled(self.average, removal, power)
        return replace(self, pairwise=scaled(self.pairwise, removal, power), average=average)

    @cached_property
    def hubs(self) -> tuple[str, ...]:
        """Groups that leave no more than two free ones in any part when they are fixed.

        The group in most of the parts that have too many is taken first, again and again.
        """
        left = [set(names) for _, names in self._named_parts]
        hubs: list[str] = []
        while large := [names for names in left if len(names) > 2]:
            counts = Counter(name for names in large for name in names)
            # Sizes rather than formats: fixing a stream frees all layers along it.
            hub = max(counts, key=lambda n: (n not in self.named, counts[n], -self._place[n]))
            hubs.append(hub)
            for names in left:
                names.discard(hub)
        return tuple(hubs)

    def given(self, plan: Levels, fixed: Collection[str]) -> Problem:
        """The problem that is left when the groups ``fixed`` have the levels of ``plan``.

        Exact, but for conversions, for any set that holds the hubs; else parts of more than two
        free groups are right at the plan and, as good as, where up to two of them differ from it.
        """
        problem = self.pairwise.take(self.only({name: plan[name] for name in fixed}))
        terms = Terms()
        for part, names in self._named_parts:
            free = [name for name in names if name not in fixed]
            terms.add(self._projected(part, free, problem, plan))
        return with_terms(problem, terms)

    def near(self, plan: Levels, fixed: Collection[str] = ()) -> Problem:
        """As `given`, with conversions in a form around the plan, and exact at it."""
        problem = self.given(plan, fixed)
        if self.conversions.parts:
            offered = {group.name: group.levels for group in problem.groups}
            terms = self.conversions.near(plan, offered)
            terms.add(self.conversions.average, -1.0)
            problem = with_terms(problem, terms)
        off_ms = self.evaluate(plan)[1] - problem.evaluate(plan)[1]
        return replace(problem, base_ms=problem.base_ms + off_ms)

    @cached_property
    def relaxed(self) -> Problem:
        """The problem with the least times that the hubs allow, so that it bounds this one."""
        terms = Terms()
        anywhere = {group.name: group.levels[0] for group in self.groups}
        for part, names in self._named_parts:
            free = [name for name in names if name not in self.hubs]
            least = part.least({*free, *(part.names - set(names))})
            terms.add(self._projected(least, free, self.pairwise, anywhere))
        return with_terms(self.pairwise, terms)

    def _projected(self, part: Joint, free: Sequence[str], problem: Problem, plan: Levels) -> Terms:
        def time_ms(points: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            return part.over(free, points, plan)

        return project(
            time_ms,
            {name: problem[name].levels for name in free},
            named=self.named,
            around={name: plan[name] for name in free},
        )

    @cached_property
    def _named_parts(self) -> list[tuple[Joint, tuple[str, ...]]]:
        """Each part with its groups that have a choice, in the order of the problem."""
        groups = [group.name for group in self.groups if len(group.levels) > 1]
        return [(part, tuple(name for name in groups if name in part.names)) for part in self.parts]

    @cached_property
    def _place(self) -> dict[str, int]:
        return self.pairwise.index


def with_terms(problem: Problem, terms: Terms) -> Problem:
    """A problem with more time: a constant, and terms of groups and pairs of groups.

    Levels that the problem lacks are left out; those that have no time cost nothing.
    """
    groups = []
    for group in problem.groups:
        times = terms.unary.get(group.name, {})
        more = np.array([times.get(level, 0.0) for level in group.levels])
        groups.append(replace(group, time_ms=group.time_ms + more))
    found = [(pair.first, pair.second, pair.time_ms) for pair in problem.pairs]
    for (first, second), cells in terms.pairs.items():
        rows, columns = problem[first].levels, problem[second].levels
        table = np.array([[cells.get((i, j), 0.0) for j in columns] for i in rows])
        found.append((first, second, table))
    tables: dict[tuple[str, str], Any] = {}
    for first, second, table in found:
        if (second, first) in tables:
            first, second, table = second, first, table.T
        tables[first, second] = tables.get((first, second), 0.0) + table
    pairs = [Pair(first, second, table) for (first, second), table in tables.items()]
    return Problem(tuple(groups), tuple(pairs), problem.base_ms + terms.constant)

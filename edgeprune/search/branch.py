"""The exact search over problems with joint times: a branch for the levels of the hubs.

With the hubs fixed what is left is pairwise and solved as such; the Lagrangian bound tells which
branches are worth it (branch and bound; Land and Doig, Econometrica 28, 1960). Where the hubs have
too many combinations, they are moved one at a time from the best plan of the average form.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

import numpy as np

from edgeprune.errors import InfeasibleTarget
from edgeprune.search.bound import lagrangian_bound
from edgeprune.search.dominance import drop_dominated
from edgeprune.search.joint import JointProblem
from edgeprune.search.problem import Problem, time_limit_ms
from edgeprune.search.process import MilpProcess
from edgeprune.search.solve import Solution, Status, relative_gap, solve

# A branch takes a few tenths of a second.
_MOST_BRANCHES = 64
# Budgets tried with the average form until its plan really is within the budget.
_MOST_BUDGETS = 6
_UNDER = 0.995
_ROUNDING = 1e-9

Levels = Mapping[str, int]


def solve_joint(
    joint: JointProblem,
    budget_ms: float,
    *,
    gap: float = 1e-3,
    time_limit_s: float = 30.0,
    process: MilpProcess | None = None,
) -> Solution:
    """The plan of least distortion whose exact time is within the budget.

    Optimal within ``gap``, with small parts in their pairwise form, where the solution says so; a
    good plan with a loose bound where the hubs have too many combinations.

    Args:
        joint: What there is to choose from.
        budget_ms: Largest time of the plan, in ms.
        gap: Relative optimality gap at which the solver may stop.
        time_limit_s: Seconds for the solver in each branch.
        process: A solver process to share between searches; else one is started and ended.

    Raises:
        InfeasibleTarget: No plan is fast enough.
    """
    if process is None:
        with MilpProcess() as own:
            return solve_joint(joint, budget_ms, gap=gap, time_limit_s=time_limit_s, process=own)
    branches = _Branches(joint, budget_ms, gap, time_limit_s, process)
    if not joint.hubs:
        found = branches.solved(joint.given(_anywhere(joint), ()))
    elif math.prod(len(levels) for levels in branches.levels.values()) <= _MOST_BRANCHES:
        found = _all(branches)
    else:
        found = _descent(branches)
    return _within(branches, found)


class _Branches:
    """The problems that are left when the hubs are fixed."""

    def __init__(
        self,
        joint: JointProblem,
        budget_ms: float,
        gap: float,
        time_limit_s: float,
        process: MilpProcess,
    ) -> None:
        self.joint, self.budget_ms = joint, budget_ms
        self.gap, self.time_limit_s, self.process = gap, time_limit_s, process
        self.levels = {
            hub: tuple(
                level
                for level, distortion in zip(g.levels, g.distortion, strict=True)
                if math.isfinite(distortion)
            )
            for hub in joint.hubs
            for g in (joint.pairwise[hub],)
        }

    def at(self, plan: Levels) -> Problem:
        return drop_dominated(self.joint.given(plan, self.joint.hubs))

    def bound(self, problem: Problem) -> tuple[float, float]:
        """No plan of a branch has less distortion within the limit; none takes less time."""
        dual = lagrangian_bound(problem, time_limit_ms(self.budget_ms))
        return dual.bound, dual.fastest_ms

    def solved(self, problem: Problem, budget_ms: float | None = None) -> Solution:
        return solve(
            problem,
            self.budget_ms if budget_ms is None else budget_ms,
            gap=self.gap,
            time_limit_s=self.time_limit_s,
            process=self.process,
        )


def _all(branches: _Branches) -> Solution:
    """The best of all branches, those of lowest bound first, as long as any may be better."""
    anywhere = _anywhere(branches.joint)
    found: list[tuple[float, int, Problem]] = []
    fastest_ms = math.inf
    for levels in product(*branches.levels.values()):
        problem = branches.at({**anywhere, **dict(zip(branches.levels, levels, strict=True))})
        bound, branch_ms = branches.bound(problem)
        fastest_ms = min(fastest_ms, branch_ms)
        if math.isfinite(bound):
            found.append((bound, len(found), problem))
    best: Solution | None = None
    open_bound = math.inf
    for bound, _, problem in sorted(found, key=lambda entry: entry[:2]):
        if best is not None and bound >= best.distortion * (1 - branches.gap):
            open_bound = min(open_bound, bound)
            break
        try:
            solution = branches.solved(problem)
        except InfeasibleTarget:
            continue
        open_bound = min(open_bound, solution.distortion * (1 - solution.gap))
        if best is None or solution.distortion < best.distortion:
            best = solution
    if best is None:
        raise InfeasibleTarget(
            f"no plan is as fast as {branches.budget_ms:.6g} ms; the fastest reachable is "
            f"{fastest_ms:.6g} ms: raise the target",
            fastest_ms=fastest_ms,
        )
    left = relative_gap(best.distortion, min(open_bound, best.distortion))
    status: Status = "optimal" if left <= max(branches.gap, _ROUNDING) else "feasible"
    lower = min(bound for bound, _, _ in found)
    return replace(best, gap=left, lower_bound=lower, status=status)


def _descent(branches: _Branches) -> Solution:
    """Move one hub at a time while that helps, from the plan of the average form."""
    best = _start(branches)
    tried: set[tuple[int, ...]] = set()
    while len(tried) < _MOST_BRANCHES:
        for plan in _moved(branches, best, tried):
            problem = branches.at(plan)
            if branches.bound(problem)[0] >= best.distortion * (1 - branches.gap):
                continue
            try:
                solution = branches.solved(problem)
            except InfeasibleTarget:
                continue
            if solution.distortion < best.distortion * (1 - branches.gap):
                best = solution
                break
        else:
            break
    lower, _ = branches.bound(drop_dominated(branches.joint.relaxed))
    left = relative_gap(best.distortion, min(lower, best.distortion))
    return replace(best, gap=left, lower_bound=lower, status="feasible")


def _moved(
    branches: _Branches, best: Solution, tried: set[tuple[int, ...]]
) -> Iterator[dict[str, int]]:
    """Plans with one hub at another level, the next levels first, none twice."""
    moves = [
        (abs(place - levels.index(best.levels[hub])), number, hub, level)
        for number, (hub, levels) in enumerate(branches.levels.items())
        for place, level in enumerate(levels)
    ]
    for _, _, hub, level in sorted(moves):
        plan = {**best.levels, hub: level}
        key = tuple(plan[name] for name in branches.levels)
        if level == best.levels[hub] or key in tried or len(tried) >= _MOST_BRANCHES:
            continue
        tried.add(key)
        yield plan


def _within(branches: _Branches, found: Solution) -> Solution:
    """The plan in terms of exact times: small parts are taken in their form around it, in turns.

    Raises:
        InfeasibleTarget: No plan was found whose exact time keeps the budget.
    """
    joint, limit_ms = branches.joint, time_limit_ms(branches.budget_ms)
    if all(part.approximation is None for part in joint.parts):
        return found
    best = found if joint.evaluate(found.levels)[1] <= limit_ms else None
    budget_ms, levels, fastest_ms = branches.budget_ms, found.levels, math.inf
    for _ in range(_MOST_BUDGETS):
        problem = drop_dominated(joint.near(levels, joint.hubs))
        try:
            solution = branches.solved(problem, budget_ms)
        except InfeasibleTarget:
            break
        _, exact_ms = joint.evaluate(solution.levels)
        fastest_ms = min(fastest_ms, exact_ms)
        if exact_ms > limit_ms:
            budget_ms -= exact_ms - _UNDER * branches.budget_ms
        elif best is None or solution.distortion < best.distortion * (1 - branches.gap):
            best = solution
        else:
            break
        levels = solution.levels
    if best is None:
        raise InfeasibleTarget(
            f"no plan was found that is as fast as {branches.budget_ms:.6g} ms: raise the target",
            fastest_ms=fastest_ms,
        )
    return replace(best, gap=found.gap, lower_bound=found.lower_bound, status=found.status)


def _start(branches: _Branches) -> Solution:
    """A plan within the budget, by the average form or with all hubs at their fastest.

    Raises:
        InfeasibleTarget: None was found.
    """
    failed: InfeasibleTarget | None = None
    for plan in (_from_average(branches), _smallest(branches)):
        if plan is None:
            continue
        try:
            return branches.solved(branches.at(plan))
        except InfeasibleTarget as error:
            failed = error
    assert failed is not None
    raise failed


def _from_average(branches: _Branches) -> dict[str, int] | None:
    """The plan of the average form whose exact time keeps the budget, if any does."""
    joint, budget_ms = branches.joint, branches.budget_ms
    if joint.average is None:
        return None
    for _ in range(_MOST_BUDGETS):
        try:
            levels = branches.solved(joint.average, budget_ms).levels
        except InfeasibleTarget:
            return None
        _, exact_ms = joint.evaluate(levels)
        if exact_ms <= branches.budget_ms:
            return levels
        budget_ms -= exact_ms - _UNDER * branches.budget_ms
    return None


def _smallest(branches: _Branches) -> dict[str, int]:
    """A plan with all hubs at their lowest level."""
    return {**_anywhere(branches.joint), **{hub: min(ls) for hub, ls in branches.levels.items()}}


def _anywhere(joint: JointProblem) -> dict[str, int]:
    return {g.name: g.levels[int(np.argmin(g.distortion))] for g in joint.groups}

"""The exact search over problems with joint times: a branch for the levels of the hubs.

With the hubs fixed what is left is pairwise and solved as such; the Lagrangian bound tells which
branches are worth it (branch and bound; Land and Doig, Econometrica 28, 1960). Where the hubs have
too many combinations, they are moved one at a time from the best plan of the average form.
"""

import math
import time
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
# Of the budget, for the form of conversions, which may see no plan where there is one just within.
_SHARES = (1.0, 0.97, 0.92)
_LEAST_S = 1.0
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

    Optimal within ``gap``, but for conversions, where the solution says so; a good plan with a
    loose bound where the hubs have too many combinations.

    Args:
        joint: What there is to choose from.
        budget_ms: Largest time of the plan, in ms.
        gap: Relative optimality gap at which the solver may stop.
        time_limit_s: Seconds for the solver, in all branches together; each gets one at least.
        process: A solver process to share between searches; else one is started and ended.

    Raises:
        InfeasibleTarget: No plan is fast enough.
    """
    if process is None:
        with MilpProcess() as own:
            return solve_joint(joint, budget_ms, gap=gap, time_limit_s=time_limit_s, process=own)
    failed: InfeasibleTarget | None = None
    deadline = time.monotonic() + time_limit_s
    for share in _SHARES if joint.conversions.parts else _SHARES[:1]:
        branches = _Branches(joint, share * budget_ms, gap, deadline, process)
        try:
            return _within(branches, _found(branches), budget_ms)
        except InfeasibleTarget as error:
            failed = failed or error
    known = _fastest(joint, budget_ms)
    if known is None:
        assert failed is not None
        raise failed
    return known


def _found(branches: "_Branches") -> Solution:
    """The best plan in the form of the problem."""
    joint = branches.joint
    if not joint.hubs:
        return branches.solved(joint.given(_anywhere(joint), ()))
    if math.prod(len(levels) for levels in branches.levels.values()) <= _MOST_BRANCHES:
        return _all(branches)
    return _descent(branches)


def _fastest(joint: JointProblem, budget_ms: float) -> Solution | None:
    """The fastest plan that is known, where it keeps the budget."""
    if joint.fastest is None:
        return None
    distortion, time_ms = joint.evaluate(joint.fastest)
    if time_ms > time_limit_ms(budget_ms) or not math.isfinite(distortion):
        return None
    return Solution(
        levels=dict(joint.fastest),
        distortion=distortion,
        time_ms=time_ms,
        gap=1.0,
        lower_bound=-math.inf,
        multiplier=0.0,
        status="feasible",
        message="the fastest plan that is known",
    )


class _Branches:
    """The problems that are left when the hubs are fixed."""

    def __init__(
        self,
        joint: JointProblem,
        budget_ms: float,
        gap: float,
        deadline: float,
        process: MilpProcess,
    ) -> None:
        self.joint, self.budget_ms = joint, budget_ms
        self.gap, self.deadline, self.process = gap, deadline, process
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
            time_limit_s=max(self.deadline - time.monotonic(), _LEAST_S),
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
            f"no plan is as fast as {branches.budget_ms:.6g} ms; none takes less than "
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
    most = _MOST_BRANCHES + 2 * len(branches.levels)
    while len(tried) < most:
        for plan in _moved(branches, best, tried, most):
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
    branches: _Branches, best: Solution, tried: set[tuple[int, ...]], most: int
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
        if level == best.levels[hub] or key in tried or len(tried) >= most:
            continue
        tried.add(key)
        yield plan


def _within(branches: _Branches, found: Solution, budget_ms: float) -> Solution:
    """The plan in terms of exact times: conversions are taken in their form around it, in turns.

    Raises:
        InfeasibleTarget: No plan was found whose exact time keeps the budget.
    """
    joint, limit_ms = branches.joint, time_limit_ms(budget_ms)
    if not joint.conversions.parts:
        return found
    best = found if joint.evaluate(found.levels)[1] <= limit_ms else None
    asked_ms, levels, seen = budget_ms, found.levels, []
    for _ in range(_MOST_BUDGETS):
        try:
            problem = drop_dominated(joint.near(levels, joint.hubs))
            solution = branches.solved(problem, asked_ms)
        except InfeasibleTarget:
            break
        _, exact_ms = joint.evaluate(solution.levels)
        seen.append(exact_ms)
        if exact_ms > limit_ms:
            asked_ms -= exact_ms - _UNDER * budget_ms
        elif best is None or solution.distortion < best.distortion * (1 - branches.gap):
            best = solution
        else:
            break
        levels = solution.levels
    if best is None:
        raise InfeasibleTarget(
            f"no plan was found that is as fast as {budget_ms:.6g} ms: raise the target",
            fastest_ms=min(seen, default=None),
        )
    # The bound is one in the form of the problem, in which the plan may have been found elsewhere.
    reached = relative_gap(best.distortion, min(found.lower_bound, best.distortion))
    kept = best.levels == found.levels
    return replace(
        best,
        gap=found.gap if kept else min(reached, 1.0),
        lower_bound=found.lower_bound,
        status=found.status if kept else "feasible",
    )


def _start(branches: _Branches) -> Solution:
    """A plan within the budget, by the average form or with all hubs at their lowest level.

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

"""The exact search: a MILP in a child process, checked from the tables and certified."""

import math
import time
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from edgeprune.errors import InfeasibleTarget
from edgeprune.search.bound import Dual, lagrangian_bound
from edgeprune.search.dominance import drop_dominated
from edgeprune.search.fastest import fastest_plan
from edgeprune.search.fixing import drop_hopeless
from edgeprune.search.problem import Choice, Problem, time_limit_ms
from edgeprune.search.process import MilpProcess, SolverDied
from edgeprune.search.warm import best_feasible

# HiGHS accepts a row that is violated by its tolerance; so often the budget is tightened for it.
_TIGHTENINGS = 3
_ROUNDING = 1e-9

Status = Literal["optimal", "feasible", "lagrangian"]


@dataclass(frozen=True)
class Solution:
    """A plan within the budget, with what is known about how good it is.

    Attributes:
        levels: The level of each group.
        distortion: Of the plan, from the tables.
        time_ms: Of the plan, from the tables.
        gap: How much of the distortion might still be saved, as a share, by the better of the
            solver's bound and the Lagrangian one.
        lower_bound: The Lagrangian bound: no plan within the budget has less distortion.
        multiplier: Distortion a millisecond more would save, by the Lagrangian bound.
        status: ``optimal`` within the gap asked for; ``feasible`` when the solver ran out of
            time; ``lagrangian`` when it gave no usable answer and the plan is the greedy one.
        message: The solver's words, or what happened to it.
    """

    levels: dict[str, int]
    distortion: float
    time_ms: float
    gap: float
    lower_bound: float
    multiplier: float
    status: Status
    message: str

    @property
    def certified_gap(self) -> float:
        """The gap to the Lagrangian bound alone, in which the solver has no part."""
        return relative_gap(self.distortion, self.lower_bound)


def solve(
    problem: Problem,
    budget_ms: float,
    *,
    gap: float = 1e-3,
    time_limit_s: float = 30.0,
    process: MilpProcess | None = None,
) -> Solution:
    """The plan of least distortion whose time is within the budget.

    Args:
        problem: What there is to choose from.
        budget_ms: Largest time of the plan, in ms; 1e-9 of it is forgiven.
        gap: Relative optimality gap at which the solver may stop.
        time_limit_s: Seconds for the solver, which is killed when it overruns by a quarter.
        process: A solver process to share between searches; else one is started and ended.

    Raises:
        InfeasibleTarget: No plan is fast enough; carries the fastest reachable time.
    """
    if process is None:
        with MilpProcess() as own:
            return solve(problem, budget_ms, gap=gap, time_limit_s=time_limit_s, process=own)
    limit_ms = time_limit_ms(budget_ms)
    reduced = drop_dominated(problem)
    dual = lagrangian_bound(reduced, limit_ms)
    warm = None
    if math.isfinite(dual.bound):
        warm = best_feasible(reduced, limit_ms, dual.choices)
    if warm is None:
        # Either no plan fits, or only the solver can find one.
        warm = _fastest(reduced, budget_ms, limit_ms, time_limit_s, process)
    levels, ceiling = reduced.levels(warm), reduced.evaluate_choice(warm)[0]
    if relative_gap(ceiling, dual.bound) <= gap:
        answer = _Answer(None, -math.inf, "the Lagrangian bound alone shows it")
    else:
        for price in (0.0, dual.multiplier):
            reduced = drop_hopeless(reduced, limit_ms, ceiling, price)
        reduced = drop_dominated(reduced)
        answer = _ask(reduced, limit_ms, gap, time_limit_s, process)
    return _certified(problem, dual, levels, answer, gap)


@dataclass(frozen=True, eq=False)
class _Answer:
    """What of the solver's answer stood up to a check against the tables."""

    levels: dict[str, int] | None
    bound: float
    message: str


def _fastest(
    problem: Problem, budget_ms: float, limit_ms: float, time_limit_s: float, process: MilpProcess
) -> Choice:
    """The fastest choice, or the error that says that it is too slow."""
    fastest = fastest_plan(problem, time_limit_s=time_limit_s, process=process)
    if fastest.time_ms > limit_ms:
        raise InfeasibleTarget(
            f"no plan is as fast as {budget_ms:.6g} ms; the fastest reachable is "
            f"{fastest.time_ms:.6g} ms: raise the target",
            fastest_ms=fastest.time_ms,
        )
    return problem.choice(fastest.levels)


def _ask(
    problem: Problem, limit_ms: float, gap: float, time_limit_s: float, process: MilpProcess
) -> _Answer:
    """Ask the solver, with a tighter budget when its plan breaks the budget by rounding."""
    asked_ms, bound = limit_ms, -math.inf
    deadline = time.monotonic() + time_limit_s
    for attempt in range(_TIGHTENINGS):
        left_s = deadline - time.monotonic()
        if attempt and left_s <= 0:
            break
        try:
            answer = process.solve(problem, asked_ms, gap=gap, time_limit_s=left_s)
        except SolverDied as error:
            return _Answer(None, bound, str(error))
        if attempt == 0 and answer["bound"] is not None:
            bound = answer["bound"]
        if answer["choice"] is None:
            return _Answer(None, bound, answer["message"])
        choice = np.array(answer["choice"], dtype=np.intp)
        over_ms = problem.evaluate_choice(choice)[1] - limit_ms
        if over_ms <= 0:
            return _Answer(problem.levels(choice), bound, answer["message"])
        asked_ms -= 2 * over_ms
    return _Answer(None, bound, "the solver's plans took more time than the tables allow")


def _certified(
    problem: Problem, dual: Dual, warm: dict[str, int], answer: _Answer, gap: float
) -> Solution:
    """The better of the solver's plan and the greedy one, with the bounds on both."""
    levels, status = answer.levels or warm, "feasible" if answer.levels else "lagrangian"
    if problem.evaluate(warm)[0] < problem.evaluate(levels)[0]:
        levels = warm
    distortion, time_ms = problem.evaluate(levels)
    # A solver's bound above a plan that exists is wrong, and proves nothing.
    bound = dual.bound
    if answer.bound <= distortion + 1e-6 * abs(distortion):
        bound = max(bound, answer.bound)
    reached = relative_gap(distortion, bound)
    if reached <= max(gap, _ROUNDING):
        status = "optimal"
    return Solution(
        levels=levels,
        distortion=distortion,
        time_ms=time_ms,
        gap=reached,
        lower_bound=dual.bound,
        multiplier=dual.multiplier,
        status=cast(Status, status),
        message=answer.message,
    )


def relative_gap(distortion: float, bound: float) -> float:
    """The share of a distortion that a lower bound leaves open; 0 when they meet."""
    open_distortion = distortion - bound
    if open_distortion <= _ROUNDING * abs(distortion):
        return 0.0
    return open_distortion / abs(distortion) if distortion else math.inf

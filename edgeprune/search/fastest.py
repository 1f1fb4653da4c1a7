"""The fastest plan there is, which says what budgets can be met at all."""

from dataclasses import dataclass

import numpy as np

from edgeprune.search.bound import lagrangian_bound
from edgeprune.search.dominance import drop_dominated
from edgeprune.search.problem import Choice, Problem
from edgeprune.search.process import MilpProcess, SolverDied


@dataclass(frozen=True)
class Fastest:
    """A plan of least time.

    Attributes:
        levels: The level of each group.
        distortion: Of the plan, from the tables.
        time_ms: Of the plan, from the tables.
        lower_ms: No plan takes less time; equal to ``time_ms`` unless the pairs form so dense a
            graph that only the solver could tell, and it gave no answer.
    """

    levels: dict[str, int]
    distortion: float
    time_ms: float
    lower_ms: float


def fastest_plan(
    problem: Problem, *, time_limit_s: float = 30.0, process: MilpProcess | None = None
) -> Fastest:
    """The plan of least time over all alternatives that are not forbidden.

    Without a solver wherever the pair graph allows it, which is nearly always.

    Args:
        problem: What there is to choose from.
        time_limit_s: Seconds for the solver where it is needed.
        process: A solver process to share between searches; else one is started when needed.
    """
    reduced = drop_dominated(problem)
    dual = lagrangian_bound(reduced, -np.inf)
    candidates = [_descend(reduced, choice) for choice in dual.choices]
    lower_ms = dual.fastest_ms
    if not dual.exact:
        candidates += _ask(reduced, time_limit_s, process)
    choice = min(candidates, key=lambda c: reduced.evaluate_choice(c)[1])
    distortion, time_ms = reduced.evaluate_choice(choice)
    return Fastest(reduced.levels(choice), distortion, time_ms, min(lower_ms, time_ms))


def _ask(problem: Problem, time_limit_s: float, process: MilpProcess | None) -> list[Choice]:
    if process is None:
        with MilpProcess() as own:
            return _ask(problem, time_limit_s, own)
    try:
        answer = process.solve(problem, None, gap=1e-6, time_limit_s=time_limit_s)
    except SolverDied:
        return []
    return [] if answer["choice"] is None else [np.array(answer["choice"], dtype=np.intp)]


def _descend(problem: Problem, choice: Choice) -> Choice:
    """Lower the time by single changes until none helps."""
    choice = choice.copy()
    improved = True
    while improved:
        improved = False
        for i in range(len(problem.groups)):
            times = problem.times_of(choice, i)
            level = int(times.argmin())
            if times[level] < times[choice[i]]:
                choice[i], improved = level, True
    return choice

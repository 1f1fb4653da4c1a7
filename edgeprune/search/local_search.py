"""Local search on a true loss that costs seconds to evaluate.

Additive distortion starts the search and does not end it: each evaluated plan teaches a
surrogate, which picks the next plan among the neighbours of the best plan and the optima of
problems that the evaluations leave possible (Thompson sampling). Everything is a function of the
seed and of the evaluations so far, so a search that was broken off goes on as if it had not been.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edgeprune.search.bound import lagrangian_bound
from edgeprune.search.neighbourhood import neighbours
from edgeprune.search.problem import Choice, Problem, time_limit_ms
from edgeprune.search.surrogate import Surrogate
from edgeprune.search.warm import best_feasible

Loss = Callable[[dict[str, int]], float]
Ended = Literal["exhausted", "evaluations", "deadline"]

_SAMPLES = 4


@dataclass
class SearchState:
    """All plans evaluated so far, in order, with their losses; ``inf`` for a loss of NaN."""

    evaluated: list[tuple[dict[str, int], float]] = field(default_factory=list)

    def record(self, levels: Mapping[str, int], loss: float) -> None:
        """Add an evaluation, also one that was made elsewhere."""
        self.evaluated.append((dict(levels), math.inf if math.isnan(loss) else float(loss)))

    @property
    def best(self) -> tuple[dict[str, int], float]:
        """The plan of least loss, the first of equals; whatever its time."""
        return min(self.evaluated, key=lambda entry: entry[1])


@dataclass(frozen=True)
class Refined:
    """Where a local search ended.

    Attributes:
        levels: The best plan, within the budget.
        loss: Its loss.
        evaluations: Plans evaluated in all, earlier parts of the search included.
        ended: ``exhausted`` when nothing is left to try around any plan evaluated.
    """

    levels: dict[str, int]
    loss: float
    evaluations: int
    ended: Ended


def local_search(
    problem: Problem,
    starts: Sequence[Mapping[str, int]],
    budget_ms: float,
    loss: Loss,
    *,
    evaluations: int = 100,
    deadline: float = math.inf,
    seed: int = 0,
    state: SearchState | None = None,
    time_ms: Callable[[dict[str, int]], float] | None = None,
    on_evaluation: Callable[[SearchState], None] | None = None,
) -> Refined:
    """Lower a loss of plans by evaluating few of them, all within the budget.

    Args:
        problem: Times, and additive distortions as a first guess of the loss.
        starts: Plans to evaluate first, each within the budget.
        budget_ms: Largest time of a plan, in ms.
        loss: Evaluates a plan; lower is better, NaN counts as infinite. Never called twice for
            one plan.
        evaluations: Most plans in all, those in ``state`` included (but for the first start).
        deadline: Value of ``time.monotonic()`` after which no further plan is evaluated (the
            first start is).
        seed: Of the samples.
        state: Earlier evaluations to continue from; grows in place. Plans that are not within
            this budget are learned from and nothing else.
        time_ms: Time of a plan, where the problem's is an approximation that proposes plans and
            does not judge them.
        on_evaluation: Called after each evaluation, to save the state.

    Raises:
        EdgepruneError: A start is not within the budget.
    """
    if not starts:
        raise ValueError("a local search needs a plan to start from")
    state = SearchState() if state is None else state
    search = _Search(problem, budget_ms, seed, state, time_ms)
    if time_ms is None:
        for start in starts:
            neighbours(problem, start, budget_ms)
    ended: Ended = "exhausted"
    while (levels := search.propose(starts)) is not None:
        if search.within() and time.monotonic() >= deadline:
            ended = "deadline"
            break
        if search.within() and len(search.state.evaluated) >= evaluations:
            ended = "evaluations"
            break
        search.state.record(levels, loss(dict(levels)))
        if on_evaluation is not None:
            on_evaluation(search.state)
    best, value = search.best()
    return Refined(best, value, len(search.state.evaluated), ended)


class _Search:
    """Chooses the next plan from the evaluations so far, and from nothing else."""

    def __init__(
        self,
        problem: Problem,
        budget_ms: float,
        seed: int,
        state: SearchState,
        time_ms: Callable[[dict[str, int]], float] | None,
    ) -> None:
        kept = [np.flatnonzero(np.isfinite(g.distortion)) for g in problem.groups]
        self.problem = problem.take(kept)
        self.budget_ms, self.seed, self.state = budget_ms, seed, state
        self._around: dict[bytes, list[Choice]] = {}
        self._time_ms = time_ms
        self._known_to_fit: dict[bytes, bool] = {}

    def within(self) -> list[tuple[dict[str, int], float]]:
        """The evaluated plans that keep the budget, with their losses."""
        return [entry for entry in self.state.evaluated if self._fits(entry[0])]

    def _fits(self, levels: dict[str, int]) -> bool:
        key = self.problem.choice(levels).tobytes()
        if key not in self._known_to_fit:
            ms = self._time_ms(levels) if self._time_ms else self.problem.evaluate(levels)[1]
            self._known_to_fit[key] = ms <= time_limit_ms(self.budget_ms)
        return self._known_to_fit[key]

    def best(self) -> tuple[dict[str, int], float]:
        """The plan of least loss within the budget, the first of equals."""
        return min(self.within(), key=lambda entry: entry[1])

    def propose(self, starts: Sequence[Mapping[str, int]]) -> dict[str, int] | None:
        """The next plan to evaluate, or None when there is none."""
        seen = {self.problem.choice(levels).tobytes() for levels, _ in self.state.evaluated}
        for start in starts:
            choice = self.problem.choice(start)
            if choice.tobytes() not in seen:
                return self.problem.levels(choice)
        finite = [entry for entry in self.state.evaluated if math.isfinite(entry[1])]
        if not finite:
            return None
        within = [entry for entry in self.within() if math.isfinite(entry[1])]
        plans = [self.problem.choice(levels) for levels, _ in finite]
        surrogate = Surrogate(self.problem, plans, [value for _, value in finite])
        samples = self._samples(surrogate)
        # When all around the best plan has been tried, go on around the next best.
        for levels, _ in sorted(within, key=lambda entry: entry[1]):
            best = self.problem.choice(levels)
            candidates = [c for c in [*self._near(best), *samples] if c.tobytes() not in seen]
            if candidates:
                promise = surrogate.promise(np.array(candidates), best)
                for place in promise.argsort(kind="stable"):
                    proposed = self.problem.levels(candidates[place])
                    if self._fits(proposed):
                        return proposed
        return None

    def _near(self, choice: Choice) -> list[Choice]:
        key = choice.tobytes()
        if self.problem.evaluate_choice(choice)[1] > time_limit_ms(self.budget_ms):
            return []  # within the budget by its exact time alone
        if key not in self._around:
            moves = neighbours(self.problem, self.problem.levels(choice), self.budget_ms)
            self._around[key] = [self.problem.choice(move.levels) for move in moves]
        return self._around[key]

    def _samples(self, surrogate: Surrogate) -> list[Choice]:
        """Near-optimal plans of problems with sampled distortions."""
        rng = np.random.default_rng([self.seed, len(self.state.evaluated)])
        limit_ms = time_limit_ms(self.budget_ms)
        found = []
        for _ in range(_SAMPLES):
            sampled = surrogate.sample(rng)
            dual = lagrangian_bound(sampled, limit_ms)
            choice = best_feasible(sampled, limit_ms, dual.choices)
            if choice is not None:
                found.append(choice)
        return found

"""From a budget to a plan: exact search from several readings, then the joint loss decides."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune import console
from edgeprune.compress.candidate import Candidates
from edgeprune.recipe import SearchRecipe
from edgeprune.search.neighbourhood import local_search
from edgeprune.search.problem import Problem
from edgeprune.search.process import MilpProcess
from edgeprune.search.scaling import readings, scaled
from edgeprune.search.solve import Solution, solve

Levels = dict[str, int]
_FEWEST_EVALUATIONS = 8


@dataclass(frozen=True)
class Allocated:
    """A plan's levels with what the searches said of it."""

    levels: Levels
    loss: float
    distortion: float
    gap: float


class LossLog:
    """Joint losses by plan, kept in a file of one line each, so a killed search goes on."""

    def __init__(self, path: Path, candidates: Candidates) -> None:
        self.path = path
        self.candidates = candidates
        self.seconds: list[float] = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._read(line)

    def loss(self, levels: Mapping[str, int]) -> float:
        """The joint loss of a plan, measured once."""
        key = self.candidates.key(levels)
        if key not in self.candidates.scores:
            begin = time.monotonic()
            value = self.candidates.loss(levels)
            self.seconds.append(time.monotonic() - begin)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"plan": key, "loss": value}) + "\n")
        return self.candidates.scores[key]

    def _read(self, line: str) -> None:
        try:
            record = json.loads(line)
            self.candidates.scores[str(record["plan"])] = float(record["loss"])
        except (ValueError, KeyError, TypeError):
            return  # the line that was being written when the process died


def exact(problem: Problem, budget_ms: float, recipe: SearchRecipe) -> Solution:
    """The additive optimum within a budget of summed layer times.

    Raises:
        InfeasibleTarget: No plan is fast enough.
    """
    return solve(problem, budget_ms, gap=recipe.gap, time_limit_s=recipe.time_limit_s)


def starting_plans(
    problem: Problem, budget_ms: float, recipe: SearchRecipe
) -> list[tuple[Levels, float]]:
    """Distinct plans from several readings of the distortions, each with its solver's gap."""
    found: dict[str, tuple[Levels, float]] = {}
    with MilpProcess() as process:
        for removal, power in readings(recipe.scalings):
            solution = solve(
                scaled(problem, removal, power),
                budget_ms,
                gap=recipe.gap,
                time_limit_s=recipe.time_limit_s,
                process=process,
            )
            found.setdefault(json.dumps(solution.levels), (solution.levels, solution.gap))
    return list(found.values())


def allocate(
    problem: Problem,
    budget_ms: float,
    recipe: SearchRecipe,
    log: LossLog,
    *,
    evaluations: int | None = None,
    start: Levels | None = None,
) -> Allocated:
    """The plan of least joint loss found within the budget.

    Args:
        problem: Distortions and times.
        budget_ms: Budget of summed layer times.
        recipe: Readings to start from and minutes to refine.
        log: Measures and remembers joint losses.
        evaluations: Evaluations of the refinement; by default as many as the recipe's minutes
            allow at the pace of the first ones.
        start: A known good plan within the budget, in place of the readings.
    """
    starts = [(start, 0.0)] if start else starting_plans(problem, budget_ms, recipe)
    with console.progress("comparing plans on their joint loss", len(starts)) as bar:
        losses = []
        for levels, _ in starts:
            losses.append(log.loss(levels))
            bar.advance()
    best = int(np.argmin(losses))
    levels, gap = starts[best]
    if evaluations is None:
        evaluations = affordable(recipe.refine_minutes, log)
    if evaluations > 0:
        levels = _refined(problem, levels, budget_ms, log.loss, evaluations)
    loss = log.loss(levels)
    if not math.isfinite(loss):
        console.warning("every plan within the budget gives outputs that are not finite")
    return Allocated(levels, loss, problem.evaluate(levels)[0], gap)


def affordable(minutes: float, log: LossLog) -> int:
    """How many evaluations fit into ``minutes``; kept beside the log so that a rerun agrees."""
    note = log.path.with_suffix(".pace.json")
    if note.exists():
        pace = float(json.loads(note.read_text(encoding="utf-8"))["seconds"])
    else:
        pace = float(np.median(log.seconds)) if log.seconds else 1.0
        note.write_text(json.dumps({"seconds": pace}), encoding="utf-8")
    if minutes <= 0:
        return 0
    return max(_FEWEST_EVALUATIONS, int(minutes * 60 / max(pace, 1e-3)))


def _refined(
    problem: Problem,
    levels: Levels,
    budget_ms: float,
    loss: Callable[[Mapping[str, int]], float],
    evaluations: int,
) -> Levels:
    with console.progress("refining the plan", evaluations) as bar:

        def counted(candidate: Mapping[str, int]) -> float:
            value = loss(candidate)
            bar.advance(note=f"(output error {value:.4f})")
            return value

        return local_search(problem, levels, budget_ms, counted, evaluations=evaluations).levels

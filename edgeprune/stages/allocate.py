"""From a budget to a plan: exact search from several readings, then the joint loss decides."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune import console
from edgeprune.atomic import atomic_write_json
from edgeprune.compression.candidate import Candidates
from edgeprune.errors import InfeasibleTarget
from edgeprune.recipe import SearchRecipe
from edgeprune.search.branch import solve_joint
from edgeprune.search.joint import JointProblem
from edgeprune.search.local_search import SearchState, local_search
from edgeprune.search.process import MilpProcess
from edgeprune.search.scaling import readings
from edgeprune.search.solve import Solution

Levels = dict[str, int]


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
        # What this process asked for, so that a resumed search knows no more than an unbroken one.
        self.asked: dict[str, float] = {}
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
        self.asked[key] = self.candidates.scores[key]
        return self.asked[key]

    def _read(self, line: str) -> None:
        try:
            record = json.loads(line)
            self.candidates.scores[str(record["plan"])] = float(record["loss"])
        except (ValueError, KeyError, TypeError):
            return  # the line that was being written when the process died


def exact(problem: JointProblem, budget_ms: float, recipe: SearchRecipe) -> Solution:
    """The additive optimum within a budget of summed layer times.

    Raises:
        InfeasibleTarget: No plan is fast enough.
    """
    return solve_joint(problem, budget_ms, gap=recipe.gap, time_limit_s=recipe.time_limit_s)


def starting_plans(
    problem: JointProblem, budget_ms: float, recipe: SearchRecipe, whole: Levels | None = None
) -> list[tuple[Levels, float]]:
    """Distinct plans from several readings of the distortions, each with its solver's gap.

    With ``whole``, levels of groups, each reading is also solved with these groups at them.

    Raises:
        InfeasibleTarget: No reading gave a plan that is fast enough.
    """
    found: dict[str, tuple[Levels, float]] = {}
    problems = [problem, *([problem.restricted(whole)] if whole else [])]
    asked = [(p, *reading) for p in problems for reading in readings(recipe.scalings)]
    failed: InfeasibleTarget | None = None
    with MilpProcess() as process, console.progress("searching exactly", len(asked)) as bar:
        for posed, removal, power in asked:
            bar.advance()
            try:
                solution = solve_joint(
                    posed.scaled(removal, power),
                    budget_ms,
                    gap=recipe.gap,
                    time_limit_s=recipe.time_limit_s,
                    process=process,
                )
            except InfeasibleTarget as error:
                failed = failed or error
                continue
            found.setdefault(json.dumps(solution.levels), (solution.levels, solution.gap))
    if not found and failed is not None:
        raise failed
    return list(found.values())


def _whole_widths(problem: JointProblem, log: LossLog) -> Levels:
    """Every head at its full width: what narrowing heads costs adds up worst of all."""
    structures = log.candidates.network.structures
    return {
        group.name: max(group.levels)
        for group in problem.groups
        if group.name in structures and structures[group.name].kind == "head_width"
    }


def allocate(
    problem: JointProblem,
    budget_ms: float,
    recipe: SearchRecipe,
    log: LossLog,
    *,
    evaluations: int | None = None,
    known: Sequence[tuple[Levels, float]] = (),
) -> Allocated:
    """The plan of least joint loss found within the budget.

    Args:
        problem: Distortions and times.
        budget_ms: Budget of summed layer times.
        recipe: Readings to start from and minutes to refine.
        log: Measures and remembers joint losses.
        evaluations: Evaluations beyond the starting plans; by default as many as the recipe's
            minutes allow at the pace of the first ones.
        known: Plans within the budget with their joint losses, to learn from.
    """
    starts = starting_plans(problem, budget_ms, recipe, _whole_widths(problem, log))
    with console.progress("comparing plans on their joint loss", len(starts)) as bar:
        for levels, _ in starts:
            log.loss(levels)
            bar.advance()
    more = affordable(recipe.refine_minutes, log) if evaluations is None else evaluations
    state = SearchState()
    for levels, loss in known:
        state.record(levels, loss)
    levels = _refined(problem, [levels for levels, _ in starts], budget_ms, log, more, state)
    loss = log.loss(levels)
    if not math.isfinite(loss):
        console.warning("every plan within the budget gives outputs that are not finite")
    return Allocated(levels, loss, problem.evaluate(levels)[0], max(gap for _, gap in starts))


def affordable(minutes: float, log: LossLog) -> int:
    """How many evaluations fit into ``minutes``; kept beside the log so that a rerun agrees."""
    note = log.path.with_suffix(".pace.json")
    if note.exists():
        pace = float(json.loads(note.read_text(encoding="utf-8"))["seconds"])
    else:
        pace = float(np.median(log.seconds)) if log.seconds else 1.0
        atomic_write_json(note, {"seconds": pace})
    return int(minutes * 60 / max(pace, 1e-3))


def _refined(
    problem: JointProblem,
    starts: Sequence[Levels],
    budget_ms: float,
    log: LossLog,
    evaluations: int,
    state: SearchState,
) -> Levels:
    """The best plan after ``evaluations`` more than the starts and the known ones.

    Moves are proposed by a pairwise form that is right around the best of them, and judged by
    their exact times.
    """
    near = problem.near(min([*starts, *(levels for levels, _ in state.evaluated)], key=log.loss))
    with console.progress("refining the plan", evaluations) as bar:
        before = len(starts) + len(state.evaluated)

        def shown(state: SearchState) -> None:
            done = max(0, len(state.evaluated) - before)
            bar.update(done, note=f"(output error {state.best[1]:.4f})")

        return local_search(
            near,
            starts,
            budget_ms,
            log.loss,
            evaluations=before + evaluations,
            state=state,
            time_ms=lambda levels: problem.evaluate(levels)[1],
            on_evaluation=shown,
        ).levels

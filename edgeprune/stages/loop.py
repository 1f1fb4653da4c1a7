"""The closed loop: plan, compile, time on the device, correct the budget, plan again."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgeprune import console
from edgeprune.compression.candidate import Candidates
from edgeprune.errors import InfeasibleTarget, StructureError
from edgeprune.graph.onnx_export import export_onnx
from edgeprune.latency.measure import Measurement, time_interleaved
from edgeprune.latency.model import LatencyModel
from edgeprune.request import Goal
from edgeprune.search.problem import Problem
from edgeprune.stages.allocate import Allocated, LossLog, allocate, exact
from edgeprune.stages.run import Run, Subject

Levels = dict[str, int]

# Planned this far under the target, so that the interval's upper end stays below it too.
_AIM = 0.98
_PROBE_SHARE = 0.5
# An interval that straddles the limit calls for more samples, not for another plan; so does a
# time this far from the planned one, which other work on the machine gives more often than a plan.
# One process may tell a miss; only several tell that a plan is met.
_LONGER = (1, 2, 4)
_UNLIKELY = 0.06
# A correction is a small step from a plan whose neighbourhood is known already.
_CORRECTION_EVALUATIONS = 24


@dataclass(frozen=True)
class Trial:
    """One plan timed against the dense model in fresh processes.

    Attributes:
        plan: Its levels, as ``Candidates.key`` writes them.
        median: In ms, as the others.
        upper: Upper end of the interval that has to stay below the limit.
        dense: Median of the dense model in the same rounds.
        final: Whether the finished artifact was timed, rather than its shapes.
    """

    plan: str
    median: float
    upper: float
    dense: float
    final: bool = False


@dataclass(frozen=True)
class Closed:
    """Where the loop ended: the plan, what the table said, and every trial on the way."""

    allocated: Allocated
    predicted_ms: float
    met: bool
    trials: tuple[Trial, ...]


def limit_ms(goal: Goal, dense_ms: float) -> float:
    """The latency that a goal asks for, given the dense model's in the same measurement."""
    return goal.value if goal.kind == "latency_ms" else dense_ms / goal.value


def upper_ms(goal: Goal, measurement: Measurement, name: str) -> float:
    """Upper end of the interval by which an artifact is judged."""
    if goal.kind == "speedup":
        # The interval of the ratio: what slowed both down in a round cancels.
        _, _, high = measurement.ratio(name, "dense")
        return high * measurement.stats("dense").median
    return measurement.stats(name).ci95[1]


class Loop:
    """The closed loop for one goal.

    Trials are kept in the stage's folder, so a run that died goes on with the same figures.
    """

    def __init__(
        self,
        run: Run,
        subject: Subject,
        goal: Goal,
        latency: LatencyModel,
        problem: Problem,
        candidates: Candidates,
        folder: Path,
    ) -> None:
        self.run, self.subject, self.goal = run, subject, goal
        self.latency, self.problem = latency, problem
        self.candidates, self.folder = candidates, folder
        self.log = LossLog(folder / "losses.jsonl", candidates)
        self.trials: list[Trial] = []
        self._kept = _read_trials(folder / "trials.jsonl")
        self._corrections = run.recipe.search.replans

    def close(self) -> Closed:
        """Plan until a measurement says met, or the recipe's corrections are used up.

        Raises:
            InfeasibleTarget: Even the fastest plan is predicted too slow.
        """
        bias = self._probe()
        recipe = self.run.recipe.search
        closed = self._settle(allocate(self.problem, self._budget(bias), recipe, self.log))
        while self._kept and self._kept[0].final:  # what an earlier process found in the end
            closed = self._planned_again(closed, self._kept.pop(0))
        return closed

    def reopen(self, closed: Closed, measurement: Measurement, name: str) -> Closed:
        """Plan again after the finished artifact missed; the same plan when no correction is left.

        Args:
            closed: What the artifact was made from.
            measurement: Of the artifact and the dense model.
            name: The artifact's name in it.
        """
        if not self._corrections:
            return closed
        plan = Candidates.key(closed.allocated.levels)
        trial = replace(self._trial(plan, measurement, name), final=True)
        self._keep(trial)
        console.message(f"{self.goal}: the finished model missed, planning again")
        return self._planned_again(closed, trial)

    def _planned_again(self, closed: Closed, trial: Trial) -> Closed:
        self.trials.append(trial)
        self._corrections -= 1
        return self._settle(self._corrected(trial, closed.allocated.levels))

    def _settle(self, allocated: Allocated) -> Closed:
        """Time a plan and its corrections until one is met and hardly faster than it has to be."""
        best: Allocated | None = None
        while True:
            trial = self._time(allocated.levels)
            limit = limit_ms(self.goal, trial.dense)
            met = trial.upper < limit
            console.message(
                f"{self.goal}: measured {trial.median:.3f} ms, wanted {limit:.3f} ms "
                f"({'met' if met else 'missed'}; output error {allocated.loss:.4f})"
            )
            if met and (best is None or allocated.loss < best.loss):
                best = allocated
            close_enough = trial.median > (1 - 2 * self.run.recipe.search.tolerance) * limit
            if (met and close_enough) or not self._corrections:
                break
            self._corrections -= 1
            corrected = self._corrected(trial, allocated.levels)
            if corrected.levels == allocated.levels:
                break
            allocated = corrected
        final = best or allocated
        predicted = self.latency.total_ms(final.levels)
        return Closed(final, predicted, best is not None, tuple(self.trials))

    def _probe(self) -> float:
        """Measured over predicted for a first plan, before anything expensive is done."""
        solution = exact(self.problem, self._budget(1.0), self.run.recipe.search)
        try:
            trial = self._time(solution.levels, probe=True)
        except StructureError:
            return 1.0  # possible one by one, not together; the joint search finds another
        return self._bias(trial, solution.levels)

    def _bias(self, trial: Trial, levels: Levels) -> float:
        """Measured over predicted, in the terms that the search adds up."""
        # A speed-up is judged against the dense model of the same measurement, so only the
        # ratio has to be right.
        scale = self.latency.dense_ms / trial.dense if self.goal.kind == "speedup" else 1.0
        _, planned_ms = self.problem.evaluate(levels)
        return trial.median * scale / self.latency.corrected_ms(planned_ms)

    def _budget(self, bias: float) -> float:
        """The budget of summed layer times for a bias of measured over predicted.

        Raises:
            InfeasibleTarget: The budget is below the fastest plan.
        """
        wanted = limit_ms(self.goal, self.latency.dense_ms)
        total = _AIM * wanted / bias
        fastest = self.latency.fastest_ms
        if total < fastest:
            raise InfeasibleTarget(
                f"target {self.goal} is out of reach: it needs {wanted:.3f} ms, the fastest plan "
                f"takes {fastest * bias:.3f} ms; ask for at least {fastest * bias / _AIM:.3f} ms"
            )
        return self.latency.sum_budget(total)

    def _corrected(self, trial: Trial, levels: Levels) -> Allocated:
        """The best plan under the budget that a trial calls for, knowing all that was evaluated."""
        budget = self._budget(self._bias(trial, levels))
        return allocate(
            self.problem,
            budget,
            self.run.recipe.search,
            self.log,
            evaluations=_CORRECTION_EVALUATIONS,
            known=self._known_within(budget),
        )

    def _known_within(self, budget_ms: float) -> list[tuple[Levels, float]]:
        """The plans evaluated so far that fit a budget, with their joint losses."""
        known = ((parse_levels(key), loss) for key, loss in self.log.asked.items())
        return [
            (levels, loss)
            for levels, loss in known
            if set(levels) == set(self.problem.index)
            and self.problem.evaluate(levels)[1] <= budget_ms
        ]

    def _time(self, levels: Levels, *, probe: bool = False) -> Trial:
        plan = Candidates.key(levels)
        if self._kept and self._kept[0].plan == plan and not self._kept[0].final:
            trial = self._kept.pop(0)
        else:
            self._kept.clear()
            trial = self._measured(plan, levels, probe)
            self._keep(trial)
        self.trials.append(trial)
        return trial

    def _keep(self, trial: Trial) -> None:
        with (self.folder / "trials.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(trial)) + "\n")

    def _measured(self, plan: str, levels: Levels, probe: bool) -> Trial:
        """Time a plan; for longer while it is neither clearly met nor missed, or surprises."""
        how = self.run.recipe.measure
        seconds = how.trial_s * (_PROBE_SHARE if probe else 1.0)
        artifact = self.timing_artifact(plan, levels)
        for factor in _LONGER:
            first = factor == _LONGER[0]
            processes = 1 if first else how.processes
            measurement = time_against_dense(
                self.run, self.subject, {"plan": artifact}, factor * seconds, processes
            )
            trial = self._trial(plan, measurement, "plan")
            limit = limit_ms(self.goal, trial.dense)
            likely = probe or abs(trial.median / (_AIM * limit) - 1) < _UNLIKELY
            met = trial.upper < limit and (probe or not first)
            if likely and (met or trial.median >= limit):
                break
        return trial

    def _trial(self, plan: str, measurement: Measurement, name: str) -> Trial:
        median, dense = measurement.stats(name).median, measurement.stats("dense").median
        return Trial(plan, median, upper_ms(self.goal, measurement, name), dense)

    def timing_artifact(self, plan: str, levels: Levels) -> Path:
        """An artifact of the plan's shapes; its weights do not matter to its latency."""
        folder = self.folder / f"shape-{hashlib.sha256(plan.encode()).hexdigest()[:12]}"
        artifact = folder / "model.xml"
        network = self.subject.network
        folder.mkdir(parents=True, exist_ok=True)
        keep = {
            name: self.candidates.alternatives[name].keep(level).tolist()
            for name, level in levels.items()
            if level < network.structures[name].units
        }
        export_onnx(network.shrink(keep), network.captured.example_inputs, folder / "model.onnx")
        return self.run.runtime.convert(folder / "model.onnx", artifact)


def time_against_dense(
    run: Run, subject: Subject, artifacts: Mapping[str, Path], seconds: float, processes: int = 1
) -> Measurement:
    """Artifacts timed in turn with the dense one, in fresh processes."""
    with console.progress("timing on the device", 1.0) as bar:
        return time_interleaved(
            run.device,
            run.target,
            {"dense": run.folder / "dense" / "model.xml", **artifacts},
            subject.inputs,
            seconds=seconds,
            processes=processes,
            on_round=bar.update,
        )


def parse_levels(key: str) -> Levels:
    """The levels that ``Candidates.key`` wrote."""
    pairs = (part.rsplit("=", 1) for part in key.split(","))
    return {name: int(level) for name, level in pairs}


def _read_trials(path: Path) -> list[Trial]:
    if not path.exists():
        return []
    trials = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            trials.append(Trial(**json.loads(line)))
        except (ValueError, TypeError):
            break  # the line that was being written when the process died
    return trials

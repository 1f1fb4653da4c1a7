"""The closed loop: plan, compile, time on the device, correct the budget, plan again."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
_LONGER = (1, 2, 4)
_UNLIKELY = 0.06
# A correction is a small step from a plan whose neighbourhood is known already.
_CORRECTION_EVALUATIONS = 24


@dataclass(frozen=True)
class Trial:
    """One plan timed against the dense model in one fresh process; figures in ms."""

    plan: str
    median: float
    upper: float
    dense: float


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

    def close(self) -> Closed:
        """Plan until a measurement says met, or the recipe's corrections are used up.

        Raises:
            InfeasibleTarget: Even the fastest plan is predicted too slow.
        """
        recipe = self.run.recipe.search
        bias = self._probe()
        allocated = allocate(self.problem, self._budget(bias), recipe, self.log)
        best: Allocated | None = None
        for attempt in range(recipe.replans + 1):
            trial = self._time(allocated.levels)
            limit = limit_ms(self.goal, trial.dense)
            met = trial.upper < limit
            console.message(
                f"{self.goal}: measured {trial.median:.3f} ms, wanted {limit:.3f} ms "
                f"({'met' if met else 'missed'}; output error {allocated.loss:.4f})"
            )
            if met and (best is None or allocated.loss < best.loss):
                best = allocated
            close_enough = trial.median > (1 - 2 * recipe.tolerance) * limit
            if (met and close_enough) or attempt == recipe.replans:
                break
            bias *= trial.median / (_AIM * limit)
            nxt = self._corrected(bias)
            if nxt.levels == allocated.levels:
                break
            allocated = nxt
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
        # A speed-up is judged against the dense model of the same measurement, so only the
        # ratio has to be right.
        scale = self.latency.dense_ms / trial.dense if self.goal.kind == "speedup" else 1.0
        return trial.median * scale / self.latency.total_ms(solution.levels)

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

    def _corrected(self, bias: float) -> Allocated:
        """The best plan under the corrected budget, knowing all that was evaluated before."""
        budget = self._budget(bias)
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
        if self._kept and self._kept[0].plan == plan:
            trial = self._kept.pop(0)
        else:
            self._kept.clear()
            trial = self._measured(plan, levels, probe)
            with (self.folder / "trials.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(trial)) + "\n")
        self.trials.append(trial)
        return trial

    def _measured(self, plan: str, levels: Levels, probe: bool) -> Trial:
        """Time a plan; for longer while it is neither clearly met nor missed, or surprises."""
        seconds = self.run.recipe.measure.trial_s * (_PROBE_SHARE if probe else 1.0)
        artifact = self.timing_artifact(plan, levels)
        for factor in _LONGER:
            measurement = time_against_dense(
                self.run, self.subject, {"plan": artifact}, factor * seconds
            )
            trial = self._trial(plan, measurement)
            limit = limit_ms(self.goal, trial.dense)
            likely = probe or abs(trial.median / (_AIM * limit) - 1) < _UNLIKELY
            if likely and (trial.upper < limit or trial.median >= limit):
                break
        return trial

    def _trial(self, plan: str, measurement: Measurement) -> Trial:
        stats, dense = measurement.stats("plan"), measurement.stats("dense")
        if self.goal.kind == "speedup":
            # The interval of the ratio: what slowed both down in a round cancels.
            _, _, high = measurement.ratio("plan", "dense")
            return Trial(plan, stats.median, high * dense.median, dense.median)
        return Trial(plan, stats.median, stats.ci95[1], dense.median)

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

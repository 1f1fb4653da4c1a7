"""Trials: a plan's shapes timed on the device against the dense model, and remembered."""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgeprune import console
from edgeprune.atomic import atomic_write_text
from edgeprune.compression.candidate import Candidates
from edgeprune.deployment import write_artifact
from edgeprune.graph.blocks import mask_by_magnitude
from edgeprune.latency.measure import Measurement, time_interleaved
from edgeprune.request import Goal
from edgeprune.stages.deployed import as_arrays
from edgeprune.stages.run import Run, Subject

Levels = dict[str, int]

# Planned this far under the target, so that the interval's upper end stays below it too.
AIM = 0.98
# A plan is settled on with this share of its target to spare: two measurements of one model, each
# narrow, may differ by as much, and a miss of the finished one costs its recovery.
RESERVE = 0.01
_PROBE_SHARE = 0.5
# An interval that straddles the limit calls for more samples, not for another plan; so does a
# time this far from the planned one, which other work on the machine gives more often than a plan.
# One process may tell a miss; only several tell that a plan is met.
_LONGER = (1, 2, 4)
_UNLIKELY = 0.06
# Neighbours that fill caches and memory slow the dense model down most, and flatter every plan: a
# trial in which it is this much slower than it was seen to be is taken again after a pause.
_DISTURBED = 1.04
_PAUSES = (1.5, 3.0, 6.0)  # in lengths of a trial
_MOST_PAUSES = 4


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

    def meets(self, goal: Goal, reserve: float = 0.0) -> bool:
        """Whether the interval stays below what the goal asks for, less a share of it."""
        return self.upper < (1.0 - reserve) * limit_ms(goal, self.dense)


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


class Trials:
    """The trials of one goal, in the order they were taken.

    They are kept in a file, so a run that died goes on with the same figures.
    """

    def __init__(
        self,
        run: Run,
        subject: Subject,
        goal: Goal,
        candidates: Candidates,
        folder: Path,
        before: Sequence[Trial] = (),
    ) -> None:
        """Read what an earlier process kept; ``before`` holds the trials of other goals."""
        self.run, self.subject, self.goal = run, subject, goal
        self.candidates, self.folder = candidates, folder
        self.taken: list[Trial] = []
        self._before = before
        self._file = folder / "trials.jsonl"
        self._kept = _read_trials(self._file)
        self._pauses = _MOST_PAUSES

    def of(self, levels: Levels, *, probe: bool = False) -> Trial:
        """The plan's trial: what was kept where the run comes to the same plan, else a new one.

        Raises:
            StructureError: The levels are not possible together.
            UnavailableError: The device failed.
        """
        plan = Candidates.key(levels)
        if self._kept and self._kept[0].plan == plan and not self._kept[0].final:
            trial = self._kept.pop(0)
            self.taken.append(trial)
            return trial
        if self._kept:
            # What follows a plan that was not come to again would stand in the way for ever.
            self._kept.clear()
            atomic_write_text(self._file, "".join(map(_line, self.taken)))
        return self._add(self._undisturbed(plan, levels, probe))

    def of_final(self, levels: Levels, measurement: Measurement, name: str) -> Trial:
        """The trial that the measurement of a finished artifact is."""
        trial = self._trial(Candidates.key(levels), measurement, name)
        return self._add(replace(trial, final=True))

    def kept_final(self) -> Trial | None:
        """What an earlier process measured of a finished artifact at this point, if it did."""
        if not self._kept or not self._kept[0].final:
            return None
        self.taken.append(self._kept.pop(0))
        return self.taken[-1]

    @property
    def quietest_ms(self) -> float:
        """The dense model's latency in the trial, of all goals, that was disturbed least."""
        return min((t.dense for t in (*self._before, *self.taken)), default=math.inf)

    def _add(self, trial: Trial) -> Trial:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(_line(trial))
        self.taken.append(trial)
        return trial

    def _undisturbed(self, plan: str, levels: Levels, probe: bool) -> Trial:
        """The trial in which the dense model was fastest, of a few where the machine is busy."""
        artifact = self._artifact(plan, levels)
        try:
            return self._least_disturbed(plan, artifact, probe)
        finally:
            shutil.rmtree(artifact.parent, ignore_errors=True)

    def _least_disturbed(self, plan: str, artifact: Path, probe: bool) -> Trial:
        tries = [self._measured(plan, artifact, probe)]
        for pause in _PAUSES:
            pause_s = pause * self.run.recipe.measure.trial_s
            quietest = min(tries[-1].dense, self.quietest_ms)
            if tries[-1].dense <= _DISTURBED * quietest or not self._pauses:
                break
            self._pauses -= 1
            console.message(
                f"{self.goal}: the dense model took {tries[-1].dense:.3f} ms, {quietest:.3f} ms "
                f"before: other work slows this machine down, waiting {pause_s:.0f} s"
            )
            time.sleep(pause_s)
            tries.append(self._measured(plan, artifact, probe))
        return min(tries, key=lambda trial: trial.dense)

    def _measured(self, plan: str, artifact: Path, probe: bool) -> Trial:
        """Time a plan; for longer while it is neither clearly met nor missed, or surprises."""
        how = self.run.recipe.measure
        seconds = how.trial_s * (_PROBE_SHARE if probe else 1.0)
        for factor in _LONGER:
            first = factor == _LONGER[0]
            processes = 1 if first else how.processes
            measurement = time_against_dense(
                self.run, self.subject, {"plan": artifact}, factor * seconds, processes
            )
            trial = self._trial(plan, measurement, "plan")
            limit = limit_ms(self.goal, trial.dense)
            likely = probe or abs(trial.median / (AIM * limit) - 1) < _UNLIKELY
            met = trial.meets(self.goal, RESERVE) and (probe or not first)
            if likely and (met or trial.median >= limit):
                break
        return trial

    def _trial(self, plan: str, measurement: Measurement, name: str) -> Trial:
        median, dense = measurement.stats(name).median, measurement.stats("dense").median
        return Trial(plan, median, upper_ms(self.goal, measurement, name), dense)

    def _artifact(self, plan: str, levels: Levels) -> Path:
        """An artifact of the plan's shapes; its weights do not matter to its latency."""
        folder = self.folder / f"shape-{hashlib.sha256(plan.encode()).hexdigest()[:12]}"
        network, onnx = self.subject.network, folder / "model.onnx"
        folder.mkdir(parents=True, exist_ok=True)
        kept = self.candidates.kept(levels)
        keep = {name: units.tolist() for name, units in kept.items()}
        with console.progress(f"{self.goal}: building the planned shapes"):
            module = network.shrink(keep)
            formats = self.candidates.formats(levels, module)
            mask_by_magnitude(module, formats)
            examples, out = network.captured.example_inputs, folder / self.run.artifact_name
            samples = [as_arrays(examples)]
            return write_artifact(module, formats, examples, onnx, out, self.run.runtime, samples)


def time_against_dense(
    run: Run, subject: Subject, artifacts: Mapping[str, Path], seconds: float, processes: int = 1
) -> Measurement:
    """Artifacts timed in turn with the dense one, in fresh processes."""
    with console.progress("timing on the device", 1.0) as bar:
        return time_interleaved(
            run.device,
            run.target,
            {"dense": run.folder / "dense" / run.artifact_name, **artifacts},
            subject.inputs,
            seconds=seconds,
            processes=processes,
            on_round=bar.update,
        )


def _line(trial: Trial) -> str:
    return json.dumps(asdict(trial)) + "\n"


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

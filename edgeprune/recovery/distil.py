"""Distil a pruned network from the dense one within a number of minutes."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import fx

from edgeprune.formats import ALL_DENSE, DENSE, Formats
from edgeprune.recipe import RecoveryRecipe
from edgeprune.recovery.answers import answers_of, answers_pay
from edgeprune.recovery.checkpoint import Checkpoints, State, identity_of
from edgeprune.recovery.data import Batches, Draw, TrainingData
from edgeprune.recovery.features import paired_joints
from edgeprune.recovery.holdout import Holdout
from edgeprune.recovery.precision import choose_precision, step_seconds
from edgeprune.recovery.schedules import Pace, affordable_end, rate_factor
from edgeprune.recovery.settings import first_rate_scale, resolve
from edgeprune.recovery.trainer import Trainer
from edgeprune.recovery.working import (
    Precision,
    convolves,
    inference_copy,
    set_layout,
    training_copy,
)

Progress = Callable[[float, str], None]

# Steps that are timed before the end of the run is first planned.
_TIMED_STEPS = 12
_UNPLANNED = 1_000_000_000
_MOST_SETBACKS = 3
_SETBACK_SCALE = 0.3
# A held-back loss this many times the one at the start means that training diverged; a start
# that leaves less than this share to learn counts as this.
_DIVERGED = 4.0
_LEAST_START = 0.1
# A smaller relative fall of the held-back loss is no gain for early stop.
_LEAST_GAIN = 1e-3
# The last stretch may be slower than planned; beyond this share of the time it is cut short.
_PATIENCE_S_SHARE = 1.03
# The end is planned anew at every evaluation, and where that lets wait for this share of the time.
_PLANNED_S_SHARE = 0.08
_SHOW_EVERY_S = 1.0
# oneDNN makes a kernel for every shape and forgets all but 1,024; sentences of fifty lengths need
# some thousands, and making them takes longer than running them. Read at oneDNN's first use.
_KERNELS_KEPT = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")


@dataclass(frozen=True, eq=False)
class Recovered:
    """A recovered network.

    Attributes:
        module: The student with the weights of the evaluation with the least held-back loss.
        history: One entry an evaluation: ``step``, ``share``, ``minutes``, ``loss`` (mean since
            the entry before), ``fidelity`` (R² on held-back batches), ``held_back_loss`` (that of
            the outputs there), ``learning_rate``.
        steps: Steps done.
        best_fidelity: Fidelity of ``module``; a loss of more than the output error may have found
            a higher one on the way.
        notes: What was chosen and what happened, for people.
    """

    module: fx.GraphModule
    history: list[dict[str, float]]
    steps: int
    best_fidelity: float
    notes: list[str]


def recover(
    student: fx.GraphModule,
    teacher: fx.GraphModule,
    batches: Batches,
    recipe: RecoveryRecipe,
    *,
    minutes: float,
    folder: Path,
    progress: Progress | None = None,
    shared: Path | None = None,
    formats: Formats = ALL_DENSE,
) -> Recovered:
    """Train ``student`` in place to do what ``teacher`` does, and keep its best weights.

    A run that was killed goes on from its latest checkpoint in ``folder``, and ends as the unbroken
    run with the same pace would have: bit for bit where ``recipe.steps`` fixes the pace.

    Args:
        student: A shrunk graph.
        teacher: The captured graph it was made from; nodes of equal name are compared.
        batches: Gives the task's unlabelled batches, the same each time.
        recipe: See :class:`RecoveryRecipe`.
        minutes: Most wall-clock minutes, over all resumed parts; ignored with ``recipe.steps``.
        folder: For checkpoints.
        progress: Called with the share done and a note.
        shared: Folder for the dense network's answers, which all members of a family can use;
            ``folder`` if None.
        formats: Of the student's layers by node name. Blocks of sparse layers that are zero stay
            zero, and layers in int8 are trained and judged as if they were rounded already; the
            weights themselves stay floats, to be rounded when they are packed.

    Raises:
        InputError: A format fits no layer of the student.
        TaskError: Too few samples to hold any back.
        WorkspaceError: Checkpoints cannot be written.
    """
    os.environ.setdefault(*_KERNELS_KEPT)
    run = _Run(
        student, teacher, batches, recipe, minutes, folder, progress or _silent, shared, formats
    )
    return run.finish(run.train())


class _Run:
    """One recovery: what stays the same while its :class:`State` changes."""

    def __init__(
        self,
        student: fx.GraphModule,
        teacher: fx.GraphModule,
        batches: Batches,
        recipe: RecoveryRecipe,
        minutes: float,
        folder: Path,
        progress: Progress,
        shared: Path | None,
        formats: Formats,
    ) -> None:
        self._began_s = time.monotonic()
        self._before_s = 0.0
        self._recipe, self._progress = recipe, progress
        self._student, self._teacher = student, teacher
        self._formats = {name: f for name, f in sorted(formats.items()) if f != DENSE}
        self._budget_s = math.inf if recipe.steps else 60.0 * minutes
        self._settings = resolve(recipe, student)
        identity = identity_of(student, recipe, self._settings, minutes, self._formats)
        self._checkpoints = Checkpoints(folder, identity)
        self._shared = shared or folder
        _prepare(student)
        progress(0.0, f"{self._settings}; reading batches")
        self._data = TrainingData(
            batches, size=self._settings.batch, holdout=recipe.holdout, seed=recipe.seed
        )
        self._holdout = Holdout(teacher, self._data.held, self._settings.loss)

    def train(self) -> State:
        """Run until the end; the state then says why it ended."""
        state = self._start()
        saved_s = shown_s = self._elapsed_s()
        for draw, position in self._data.stream(state.position):
            if state.stopped:
                break
            self._step(state, draw)
            state.position = position
            state.elapsed_s = now_s = self._elapsed_s()
            self._look(state)
            if now_s - shown_s >= _SHOW_EVERY_S:
                shown_s = now_s
                self._show(state)
            if now_s - saved_s >= self._recipe.checkpoint_s or state.stopped:
                saved_s = now_s
                self._save(state)
        return state

    def finish(self, state: State) -> Recovered:
        """The student with its best weights, and what happened."""
        self._checkpoints.load_best(state.best_step, self._student)
        if convolves(self._student):
            set_layout(self._student, torch.contiguous_format)
        for parameter in self._student.parameters():
            parameter.grad = None
        notes = [str(self._settings), *state.notes, state.stopped]
        return Recovered(self._student, state.history, state.step, state.best_fidelity, notes)

    def _start(self) -> State:
        """The saved state, or that of a new run with its first evaluation."""
        saved = self._checkpoints.read()
        if saved is not None:
            state, self._before_s = saved.state, saved.state.elapsed_s
            self._build(state)
            saved.restore(self._student, self._trainer.optimisers)
            return state
        batch = self._data.typical()
        precision, reason = choose_precision(
            self._recipe.precision, self._student, batch, self._formats
        )
        state = State(precision, Pace(0, 0.0, self._recipe.steps or _UNPLANNED))
        state.notes.append(f"trained in {precision}: {reason}")
        state.answers = self._answers_pay(precision)
        self._build(state)
        self._progress(0.0, f"{self._settings}; {state.notes[0]}")
        self._evaluate(state, 0.0)
        state.rate_scale = first_rate_scale(self._recipe, state.best_fidelity)
        self._save(state)
        return state

    def _answers_pay(self, precision: Precision) -> bool:
        """Whether the teacher is asked about everything once, and not at each step."""
        settings, batch = self._settings, self._data.typical()
        if settings.loss.features or settings.augment != "none" or not self._data.whole:
            return False
        steps: float = self._recipe.steps
        if not steps:
            copy = training_copy(self._student, precision=precision, formats=self._formats)
            steps = self._budget_s / step_seconds(copy, self._student, batch)
        return answers_pay(self._teacher, self._data.first_window, steps * len(batch[0]))

    def _build(self, state: State) -> None:
        """Make what trains and what judges."""
        student, settings = self._student, self._settings
        pairs: tuple[str, ...] = ()
        if settings.loss.features:
            pairs = paired_joints(student.graph, self._teacher.graph)
        teacher = inference_copy(self._teacher, pairs, precision=state.precision)
        answers = None
        if state.answers:
            answers = answers_of(
                teacher,
                self._data.first_window,
                self._shared,
                f"{identity_of(self._teacher)} {state.precision}",
                lambda note: self._progress(state.pace.at(state.step), note),
            )
        self._trainer = Trainer(
            student,
            teacher,
            pairs,
            self._holdout.variances,
            self._recipe,
            settings,
            state.precision,
            answers,
            self._formats,
        )
        self._judged = training_copy(student, precision=state.precision, formats=self._formats)

    def _step(self, state: State, draw: Draw) -> None:
        """Train on one batch; go back to the best weights where that fails."""
        loss = self._trainer.gradients(draw, state.step)
        if math.isfinite(loss) and self._trainer.update(self._rate(state)):
            state.loss_sum += loss
            state.loss_count += 1
        else:
            self._set_back(state)
        state.step += 1

    def _rate(self, state: State) -> float:
        """The learning rate of the present step."""
        # Shares count from the end of the step, so that the first one already learns.
        share = state.pace.at(state.step + 1)
        factor = rate_factor(share, self._recipe.warmup, self._recipe.schedule)
        return self._settings.learning_rate * state.rate_scale * factor

    def _look(self, state: State) -> None:
        """Plan, evaluate and stop where it is time to."""
        if state.pace.end == _UNPLANNED:
            if state.step == _TIMED_STEPS:
                self._plan(state)
            return
        share = state.pace.at(state.step)
        late = state.elapsed_s > _PATIENCE_S_SHARE * self._budget_s
        ended = share >= 1.0 or late
        if ended or int(share * self._recipe.evaluations) > state.evaluations:
            state.evaluations = int(share * self._recipe.evaluations)
            self._evaluate(state, share)
            self._plan(state)
            if ended:
                state.stopped = "stopped: out of time" if late and share < 1.0 else "finished"
            elif self._recipe.patience and state.stale >= self._recipe.patience:
                state.stopped = f"stopped early: no gain in {state.stale} evaluations"
        elif state.elapsed_s - state.planned_s > _PLANNED_S_SHARE * self._budget_s:
            self._plan(state)
        if state.setbacks > _MOST_SETBACKS:
            state.stopped = "stopped: it keeps diverging; lower recovery.learning_rate"

    def _plan(self, state: State) -> None:
        """Plan the end anew from the time that the steps since the last planning took."""
        now_s = self._elapsed_s()
        if not self._recipe.steps:
            step_s = (now_s - state.planned_s) / max(state.step - state.pace.step, 1)
            end = affordable_end(state.step, self._budget_s - now_s, step_s)
            state.pace = state.pace.replanned(state.step, end)
        state.planned_s = now_s

    def _evaluate(self, state: State, share: float) -> None:
        """Look at the held-back batches; keep weights that are the best so far."""
        judged = self._holdout.judge(self._judged)
        loss = state.loss_sum / state.loss_count if state.loss_count else math.nan
        entry = {
            "step": float(state.step),
            "share": share,
            "minutes": self._elapsed_s() / 60.0,
            "fidelity": judged.fidelity,
            "held_back_loss": judged.loss,
            "learning_rate": self._rate(state),
        }
        if math.isfinite(loss):
            entry["loss"] = loss
        state.history.append(entry)
        state.loss_sum, state.loss_count = 0.0, 0
        if state.step == 0 or judged.loss < (1.0 - _LEAST_GAIN) * state.gained_loss:
            state.gained_loss, state.stale = judged.loss, 0
        else:
            state.stale += 1
        if state.step == 0 or judged.loss < state.best_loss:
            state.best_fidelity, state.best_loss = judged.fidelity, judged.loss
            state.best_step = state.step
            self._checkpoints.save_best(state.step, self._student)
        elif judged.loss > self._diverged_loss(state):
            self._set_back(state)

    def _diverged_loss(self, state: State) -> float:
        """The held-back loss beyond which training has failed."""
        weights = self._holdout.weights
        least = _LEAST_START * (weights.output + weights.kl + weights.similarity)
        return _DIVERGED * max(state.history[0]["held_back_loss"], least)

    def _set_back(self, state: State) -> None:
        """Return to the best weights with a lower learning rate and no momentum."""
        state.notes.append(
            f"diverged at step {state.step}: went back to step {state.best_step} "
            f"with the learning rate times {_SETBACK_SCALE:g}"
        )
        state.setbacks += 1
        state.rate_scale *= _SETBACK_SCALE
        self._checkpoints.load_best(state.best_step, self._student)
        for optimiser in self._trainer.optimisers:
            optimiser.state.clear()

    def _save(self, state: State) -> None:
        self._checkpoints.save(state, self._student, self._trainer.optimisers)

    def _show(self, state: State) -> None:
        share = state.pace.at(state.step)
        end = "" if state.pace.end == _UNPLANNED else f"/{state.pace.end}"
        self._progress(share, f"step {state.step}{end}, fidelity {state.best_fidelity:.3f}")

    def _elapsed_s(self) -> float:
        return self._before_s + time.monotonic() - self._began_s


def _prepare(student: fx.GraphModule) -> None:
    """Make every floating-point parameter trainable, laid out as the CPU likes it."""
    for parameter in student.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    if convolves(student):
        set_layout(student, torch.channels_last)


def _silent(share: float, note: str) -> None:
    """The progress of a caller who wants none."""

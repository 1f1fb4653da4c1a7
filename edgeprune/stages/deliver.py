"""Finish the family: artifacts beside their plans, confirmed in fresh processes, and the report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeprune import console
from edgeprune.compression.candidate import Candidates
from edgeprune.compression.fidelity import output_error
from edgeprune.deployment import write_artifact
from edgeprune.devices.prediction import predictor
from edgeprune.errors import TaskError
from edgeprune.graph.weights import save_weights, state_key
from edgeprune.latency.measure import Measurement
from edgeprune.plan import Plan, save_plan
from edgeprune.report.app_program import write_app_program
from edgeprune.report.card import write_card
from edgeprune.request import Goal
from edgeprune.runtimes import CompileOptions
from edgeprune.stages.dense import INT8_SAMPLES, Baselines, quality
from edgeprune.stages.deployed import as_arrays, deployed_samples
from edgeprune.stages.loop import Closed
from edgeprune.stages.member import Member, formats_key, slug
from edgeprune.stages.publish import publish
from edgeprune.stages.run import Run, Subject
from edgeprune.stages.trial import limit_ms, time_against_dense, upper_ms


@dataclass(frozen=True)
class Judged:
    """How good a member is in its runtime.

    Attributes:
        quality: The task's number.
        fidelity: Share of the dense outputs' variance reproduced on held-back batches (R²).
        size_bytes: All files of the artifact.
        artifact: Path relative to the run folder.
        key: Of everything the artifact was made from.
    """

    quality: float
    fidelity: float
    size_bytes: int
    artifact: str
    key: str


def deliver(run: Run, subject: Subject, goal: Goal, member: Member, part: str = "") -> Judged:
    """Write a member's artifact and judge it on the device.

    Args:
        part: Subfolder, for a member that is not the final one.

    Raises:
        TaskError: The quality function fails, or the artifact's outputs are not finite.
    """
    stage = run.workspace.stage(
        f"judge-{slug(goal)}{'-' + part if part else ''}",
        {
            "task": run.task.key,
            "model": subject.key,
            "data": subject.data_key,
            "held_back": run.recipe.calibration.held_back,
            "weights": state_key(member.module),
            **formats_key(member.formats),
            "device": run.fingerprint.key,
        },
    )
    made = stage.folder / "made"
    if not stage.done:
        with console.progress(f"{goal}: judging {part or 'the result'} in its runtime", 3) as bar:
            made.mkdir(parents=True, exist_ok=True)
            save_weights(member.module, made / "weights.safetensors")
            examples = subject.network.captured.example_inputs
            samples = deployed_samples(subject.calibration.fit, examples, INT8_SAMPLES)
            artifact = write_artifact(
                member.module,
                member.formats,
                examples,
                made / "model.onnx",
                made / run.artifact_name,
                run.runtime,
                (as_arrays(sample) for sample in samples),
            )
            bar.advance(note="quality")
            value = quality(run, subject, artifact)
            bar.advance(note="fidelity")
            judged = {
                "quality": value,
                "fidelity": fidelity(run, subject, artifact),
                "size_bytes": run.runtime.size_bytes(artifact),
                "artifact": (Path(slug(goal)) / part / artifact.name).as_posix(),
            }
            bar.advance()
        stage.finish(judged)
    publish(made, run.folder / slug(goal) / part)
    return Judged(**stage.result, key=stage.key)


def fidelity(run: Run, subject: Subject, artifact: Path) -> float:
    """R² of the artifact's outputs on held-back samples, against the dense model in float32.

    Raises:
        TaskError: The outputs are not finite.
    """
    captured = subject.network.captured
    samples = list(
        deployed_samples(
            subject.calibration.held,
            captured.example_inputs,
            run.recipe.calibration.held_back,
        )
    )
    with torch.no_grad():
        dense = [tuple(captured.module(*sample)) for sample in samples]
    with predictor(run.device, run.target, artifact, subject.inputs) as predict:
        outputs = [
            tuple(torch.from_numpy(np.array(out)) for out in predict(as_arrays(sample)))
            for sample in samples
        ]
    error = output_error(outputs, dense)
    if not math.isfinite(error):
        raise TaskError(
            f"outputs of {artifact.name} in {run.target.runtime} are not finite; "
            "the target's precision may be too narrow: set precision: f32 in the target file"
        )
    return 1.0 - error


def confirm(
    run: Run, subject: Subject, baselines: Baselines, members: Mapping[Goal, Judged]
) -> Measurement:
    """Everything timed in turn, spread over fresh processes that tuned nothing.

    A member that misses although its plan was met is timed for longer before it counts as one.
    A family that was met is not timed again when the same run is asked for again.
    """
    artifacts = {slug(goal): run.folder / judged.artifact for goal, judged in members.items()}
    if baselines.int8 is not None:
        artifacts["dense_int8"] = run.folder / baselines.int8.artifact
    how = run.recipe.measure
    stage = run.workspace.stage(
        "confirm",
        {
            "members": {str(goal): judged.key for goal, judged in members.items()},
            "measure": repr(how),
        },
    )
    if stage.done:
        return Measurement.from_json(stage.result)
    seconds = how.confirm_s * (1 + len(artifacts))
    measurement = time_against_dense(run, subject, artifacts, seconds, how.processes)
    if not all(meets(goal, measurement) for goal in members):
        longer = time_against_dense(run, subject, artifacts, 2 * seconds, how.processes)
        measurement = measurement.joined(longer)
    if all(meets(goal, measurement) for goal in members):
        stage.finish(measurement.to_json())
    return measurement


def meets(goal: Goal, measurement: Measurement) -> bool:
    """Whether a member's interval stays below what its goal asks for."""
    limit = limit_ms(goal, measurement.stats("dense").median)
    return bool(upper_ms(goal, measurement, slug(goal)) < limit)


def write_plan(run: Run, goal: Goal, closed: Closed, candidates: Candidates) -> Plan:
    """Save ``plan.yaml`` beside the artifact."""
    levels = closed.allocated.levels
    keep = candidates.kept(levels)
    formats = candidates.choices.formats_of(levels)
    plan = Plan(
        levels=candidates.choices.levels_of(levels),
        keep={name: units.tolist() for name, units in keep.items()},
        predicted_ms=closed.predicted_ms,
        distortion=closed.allocated.distortion,
        loss=closed.allocated.loss,
        gap=closed.allocated.gap,
        formats={layer: str(format_) for layer, format_ in formats.items()},
    )
    save_plan(plan, run.folder / slug(goal) / "plan.yaml")
    return plan


def result_row(
    goal: Goal, closed: Closed, judged: Judged, measurement: Measurement, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """One entry of the report's ``results``."""
    stats, dense = measurement.stats(slug(goal)), measurement.stats("dense")
    ratio, low, high = measurement.ratio(slug(goal), "dense")
    return {
        "goal": str(goal),
        "target_ms": limit_ms(goal, dense.median),
        "met": meets(goal, measurement),
        "latency_ms": stats.to_json(),
        "predicted_ms": closed.predicted_ms,
        "speedup": 1 / ratio,
        "speedup_ci95": [1 / high, 1 / low],
        "quality": judged.quality,
        "fidelity": judged.fidelity,
        "size_bytes": judged.size_bytes,
        "artifact": judged.artifact,
        "plan": f"{slug(goal)}/plan.yaml",
        "output_error_planned": closed.allocated.loss,
        "search_gap": closed.allocated.gap,
        "compiles": len(closed.trials),
        **extra,
    }


def describe(run: Run, subject: Subject, report: dict[str, Any]) -> None:
    """Write the model card and the program that runs it beside every artifact."""
    examples = as_arrays(subject.network.captured.example_inputs)
    for row in report["results"]:
        artifact = run.folder / row["artifact"]
        write_card(artifact.parent, report, row)
        options = CompileOptions(run.target.threads, run.target.precision)
        write_app_program(artifact, examples, run.runtime, options)


def missed(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The goals that were not met, each with how close it came."""
    return [
        f"{row['goal']}: {row['latency_ms']['median']:.3f} ms measured, "
        f"{row['target_ms']:.3f} ms wanted"
        for row in rows
        if not row["met"]
    ]

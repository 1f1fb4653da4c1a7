"""The honest baselines: the dense model in the same runtime, and its int8 form beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune import console
from edgeprune.deployment import write_artifact
from edgeprune.devices.prediction import predictor
from edgeprune.errors import EdgepruneError
from edgeprune.stages.deployed import as_arrays, deployed_samples
from edgeprune.stages.publish import publish
from edgeprune.stages.run import Run, Subject

INT8_SAMPLES = 200


@dataclass(frozen=True)
class Baseline:
    """A dense artifact with its quality; ``artifact`` is relative to the run folder."""

    artifact: str
    quality: float
    size_bytes: int


@dataclass(frozen=True)
class Baselines:
    """The dense model at the runtime's default precision and, where it can be made, in int8."""

    dense: Baseline
    int8: Baseline | None
    int8_failure: str = ""


def make_baselines(run: Run, subject: Subject) -> Baselines:
    """Export, convert and judge the dense model, then quantise it.

    Raises:
        TaskError: The quality function fails on the dense model.
    """
    stage = run.workspace.stage(
        "dense",
        {
            "task": run.task.key,
            "model": subject.key,
            "data": subject.data_key,
            "device": run.fingerprint.key,
        },
    )
    made, quantised_made = stage.folder / "dense", stage.folder / "dense_int8"
    if not stage.done:
        with console.progress("dense model and its int8 form", 4) as bar:
            made.mkdir(parents=True, exist_ok=True)
            onnx = made / "model.onnx"
            captured = subject.network.captured
            examples, out = captured.example_inputs, made / run.artifact_name
            artifact = write_artifact(captured.module, {}, examples, onnx, out, run.runtime)
            bar.advance(note="quality")
            dense = _judged(run, subject, artifact)
            bar.advance(note="int8")
            int8, failure = _int8(run, subject, onnx, quantised_made)
            bar.advance(2)
        stage.finish({"dense": dense, "int8": int8, "failure": failure})
    found = stage.result
    publish(made, run.folder / made.name)
    if found["int8"]:
        publish(quantised_made, run.folder / quantised_made.name)
    quantised = Baseline(**found["int8"]) if found["int8"] else None
    return Baselines(Baseline(**found["dense"]), quantised, found["failure"])


def quality(run: Run, subject: Subject, artifact: Path) -> float:
    """The task's quality of an artifact, run on the device.

    Raises:
        TaskError: The quality function raised or returned no finite number.
    """
    with predictor(run.device, run.target, artifact, subject.inputs) as predict:
        return run.task.quality(predict)


def _judged(run: Run, subject: Subject, artifact: Path) -> dict[str, Any]:
    return {
        "artifact": f"{artifact.parent.name}/{artifact.name}",
        "quality": quality(run, subject, artifact),
        "size_bytes": run.runtime.size_bytes(artifact),
    }


def _int8(
    run: Run, subject: Subject, onnx: Path, folder: Path
) -> tuple[dict[str, Any] | None, str]:
    """The int8 row, or why there is none: a baseline that fails must not end the run."""
    examples = subject.network.captured.example_inputs
    samples = deployed_samples(subject.calibration.fit, examples, INT8_SAMPLES)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        artifact = run.runtime.quantise_int8(
            onnx, folder / run.artifact_name, [as_arrays(sample) for sample in samples]
        )
        return _judged(run, subject, artifact), ""
    except EdgepruneError as error:
        console.warning(f"no int8 baseline: {error}")
        return None, str(error)

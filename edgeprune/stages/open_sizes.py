"""A member at other sizes than the deployed ones: an ONNX file with open sizes, or why not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from edgeprune import console
from edgeprune.compression.calibration import furthest_from
from edgeprune.errors import InputError, UnavailableError, WorkspaceError
from edgeprune.graph.onnx_open import Axes, export_open_onnx, open_axes
from edgeprune.graph.running import outputs
from edgeprune.graph.weights import state_key
from edgeprune.request import Goal
from edgeprune.runtimes import CompileOptions, Session
from edgeprune.stages.deployed import as_arrays
from edgeprune.stages.member import Member, slug
from edgeprune.stages.publish import publish
from edgeprune.stages.run import Run, Subject
from edgeprune.stages.sizes_between import fitted, inputs_between

FILE = "model.dynamic.onnx"
_TOLERANCE = 1e-3


def describe_open_sizes(run: Run, subject: Subject, goal: Goal, member: Member) -> dict[str, Any]:
    """Write a member with the sizes open that the task's batches vary; put it by the artifact.

    The file is float32, without the formats of the artifact. It is published only if the runtime
    gives the network's own outputs at the deployed sizes and at others.

    Returns:
        ``onnx``, the file in the run folder, and ``axes``, the names of its open sizes by input;
        ``reason``, where the file is not to be had; nothing where no size is open.
    """
    axes, folder = open_axes(member.module), run.folder / slug(goal)
    if not run.recipe.export.open_sizes or not any(axes):
        (folder / FILE).unlink(missing_ok=True)  # of an earlier run
        return {}
    stage = run.workspace.stage(
        f"open-{slug(goal)}",
        {
            "model": subject.key,
            "data": subject.data_key,
            "weights": state_key(member.module),
            "runtime": run.runtime.versions(),
        },
    )
    made = stage.folder / "made"
    if not stage.done:
        with console.progress(f"{goal}: writing ONNX with open sizes"):
            made.mkdir(parents=True, exist_ok=True)
            try:
                _write(run, subject, member, made / FILE)
                stage.finish({"axes": [sorted(named.values()) for named in axes]})
            except WorkspaceError:
                raise  # a full disk is no property of the model
            except UnavailableError as error:
                # Not finished: what is missing may be installed before the run is asked for again.
                return _without_file(folder, str(error))
            except InputError as error:
                (made / FILE).unlink(missing_ok=True)
                stage.finish({"reason": str(error)})
    if "reason" in stage.result:
        return _without_file(folder, stage.result["reason"])
    publish(made, folder)
    return {"onnx": f"{slug(goal)}/{FILE}", "axes": stage.result["axes"]}


def _without_file(folder: Path, reason: str) -> dict[str, Any]:
    (folder / FILE).unlink(missing_ok=True)  # of an earlier plan
    return {"reason": reason}


def _write(run: Run, subject: Subject, member: Member, path: Path) -> None:
    examples = subject.network.captured.example_inputs
    batch = furthest_from(examples, subject.calibration.fit) or examples
    # Made at the deployed sizes where it is fixed: a network may run at others that are not open.
    sample = _within(batch, examples, open_axes(member.module))
    axes = export_open_onnx(member.module, sample, path)
    opened = run.runtime.convert(path, path.with_suffix(run.runtime.suffix))
    session = run.runtime.load(opened, CompileOptions(threads=1, precision="f32"))
    for inputs in (examples, sample):
        _compare(session, inputs, outputs(member.module, inputs))
    for inputs in inputs_between(examples, sample, axes):
        try:
            wanted = outputs(member.module, inputs)
        except Exception:
            continue  # whatever a network says of sizes that it does not take
        _compare(session, inputs, wanted)
    for part in path.parent.iterdir():
        if part != path:
            part.unlink()


def _compare(session: Session, inputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    sizes = ", ".join(str(list(x.shape)) for x in inputs)
    try:
        found = session.run(as_arrays(inputs))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]  # the first ones are where, not why
        raise InputError(f"with open sizes the file fails at {sizes}: {reason}") from error
    if not all(map(_is_close, found, as_arrays(wanted))):
        raise InputError(f"with open sizes the file gives other outputs at {sizes}")


def _is_close(have: np.ndarray, want: np.ndarray) -> bool:
    if have.shape != want.shape:
        return False
    scale = float(np.abs(want).max(initial=0.0))
    return bool(np.abs(have - want).max(initial=0.0) <= _TOLERANCE * max(scale, 1e-9))


def _within(batch: Sequence[Tensor], examples: Sequence[Tensor], axes: Axes) -> list[Tensor]:
    """A batch with the deployed sizes where the file has these alone."""
    result = []
    for value, example, named in zip(batch, examples, axes, strict=True):
        for dim, size in enumerate(example.shape):
            if dim not in named and value.shape[dim] != size:
                value = fitted(value, dim, size)
        result.append(value)
    return result

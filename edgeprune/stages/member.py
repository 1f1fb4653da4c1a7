"""One member of the family: a plan's network, refitted on everything, recovered, and saved."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import fx

from edgeprune import console
from edgeprune.compression.batchnorm import reestimated
from edgeprune.compression.candidate import Candidates
from edgeprune.formats import Formats
from edgeprune.graph.weights import load_weights, save_weights, state_key
from edgeprune.recovery.distil import recover
from edgeprune.request import Goal
from edgeprune.stages.run import Run, Subject

Levels = Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Member:
    """A finished network of the family.

    Attributes:
        module: The shrunk graph with its final weights.
        keep: Units that stay, for the structures that lose any.
        formats: Of the layers that are not dense.
        history: What recovery reported, one entry an evaluation; empty without recovery.
        notes: What was decided on the way.
    """

    module: fx.GraphModule
    keep: Mapping[str, list[int]]
    formats: Formats
    history: list[dict[str, float]]
    notes: list[str]


def build_member(
    run: Run, subject: Subject, goal: Goal, levels: Levels, candidates: Candidates
) -> Member:
    """Shrink, compensate and refit on the whole fit part; re-estimate statistics where it helps."""
    network = subject.network
    keep = {name: units.tolist() for name, units in candidates.kept(levels).items()}
    shrunk = network.shrink(keep)
    formats = candidates.formats(levels, shrunk)
    stage = run.workspace.stage(
        f"refit-{slug(goal)}",
        {
            "model": subject.key,
            "task": run.task.key,
            "data": subject.data_key,
            "keep": keep,
            **formats_key(formats),
            "damping": run.recipe.calibration.damping,
            "samples": run.recipe.calibration.samples,
            "refit": repr(run.recipe.refit),
            "batchnorm": run.recipe.batchnorm.reestimate,
        },
    )
    path = stage.folder / "weights.safetensors"
    if not stage.done:
        with console.progress(f"{goal}: refitting on the calibration set"):
            module, note = candidates.build_final(levels, subject.calibration.fit)
            notes = [note]
            if run.recipe.batchnorm.reestimate == "auto":
                module, note = reestimated(
                    module,
                    subject.calibration.fit,
                    lambda network: candidates.error(network, formats),
                )
                notes.append(note)
        save_weights(module, path)
        stage.finish({"notes": notes})
    load_weights(shrunk, path)
    return Member(shrunk, keep, formats, [], stage.result["notes"])


def formats_key(formats: Formats) -> dict[str, dict[str, str]]:
    """Formats as a stage's key holds them; nothing where all layers are dense."""
    named = {layer: str(format_) for layer, format_ in formats.items()}
    return {"formats": named} if named else {}


def recover_member(
    run: Run, subject: Subject, goal: Goal, member: Member, minutes: float
) -> Member:
    """Distil the member from the dense network within ``minutes``."""
    stage = run.workspace.stage(
        f"recover-{slug(goal)}",
        {
            "model": subject.key,
            "task": run.task.key,
            "data": subject.data_key,
            "start": state_key(member.module),
            "keep": {name: list(units) for name, units in member.keep.items()},
            **formats_key(member.formats),
            "minutes": minutes,
            "recipe": repr(run.recipe.recovery),
        },
    )
    path = stage.folder / "weights.safetensors"
    if not stage.done:
        with console.progress(f"{goal}: recovering", 1.0) as bar:
            recovered = recover(
                member.module,
                subject.network.captured.module,
                subject.calibration.trainable(run.task.batches),
                run.recipe.recovery,
                minutes=minutes,
                folder=stage.folder,
                shared=answers_folder(run),
                formats=member.formats,
                progress=lambda share, note: bar.update(share, note=note),
            )
        save_weights(recovered.module, path)
        stage.finish(
            {
                "history": recovered.history,
                "steps": recovered.steps,
                "notes": recovered.notes,
            }
        )
        for checkpoint in stage.folder.glob("*.safetensors"):
            if checkpoint != path:
                checkpoint.unlink()
    module = subject.network.shrink(member.keep)
    load_weights(module, path)
    notes = [*member.notes, *stage.result["notes"]]
    return Member(module, member.keep, member.formats, stage.result["history"], notes)


def answers_folder(run: Run) -> Path:
    """Where the dense network's answers wait for the next member of the family."""
    return run.folder / "stages" / "answers"


def slug(goal: Goal) -> str:
    """A goal as a folder name: ``2x``, ``10ms``."""
    return str(goal).replace(" ", "")

"""A member as the user's own module: its files beside the artifact, or why there are none."""

from pathlib import Path
from typing import Any

from edgeprune import console
from edgeprune.errors import StructureError
from edgeprune.graph.running import first_line
from edgeprune.graph.weights import save_weights, state_key
from edgeprune.graph.write_back.check import Answers
from edgeprune.graph.write_back.reload import CHECK, SIZES, WEIGHTS
from edgeprune.graph.write_back.write import write_back
from edgeprune.request import Goal
from edgeprune.stages.member import Member, slug
from edgeprune.stages.publish import publish
from edgeprune.stages.run import Run, Subject


def describe_own_module(run: Run, subject: Subject, goal: Goal, member: Member) -> dict[str, Any]:
    """Write a member into a freshly built module of the user's; put that beside the artifact.

    Returns:
        ``sizes``, the file in the run folder, and ``notes``; or ``reason``, where the module's own
        forward cannot run at these sizes. The graph module is the product then.
    """
    stage = run.workspace.stage(
        f"module-{slug(goal)}",
        {
            "task": run.task.key,
            "model": subject.key,
            "keep": {name: list(units) for name, units in member.keep.items()},
            "weights": state_key(member.module),
        },
    )
    made = stage.folder / "made"
    if not stage.done:
        with console.progress(f"{goal}: writing back into the model's own module"):
            stage.finish(_write(run, subject, member, made))
    folder = run.folder / slug(goal)
    if "reason" in stage.result:
        for name in (SIZES, WEIGHTS, CHECK):
            (folder / name).unlink(missing_ok=True)  # of an earlier plan
        return {"reason": stage.result["reason"]}
    publish(made, folder)
    return {"sizes": f"{slug(goal)}/{SIZES}", "notes": stage.result["notes"]}


def _write(run: Run, subject: Subject, member: Member, made: Path) -> dict[str, Any]:
    try:
        model = run.task.model()
        sizes = write_back(model, subject.network, member.keep, member.module)
    except StructureError as error:
        return {"reason": str(error)}
    except Exception as error:
        # The user's classes may refuse anything, and hours of work must not end here.
        return {"reason": f"writing back raised {type(error).__name__}: {first_line(error)}"}
    made.mkdir(parents=True, exist_ok=True)
    sizes.save(made / SIZES)
    save_weights(model, made / WEIGHTS)
    Answers.of(member.module, subject.network.captured.example_inputs).save(made / CHECK)
    return {"notes": list(sizes.notes)}

"""Profile a task's network without compressing it: the table grows, the range is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeprune.devices import device
from edgeprune.latency import fingerprint
from edgeprune.latency.model import LatencyModel
from edgeprune.latency.store import open_table
from edgeprune.latency.table import Table
from edgeprune.locate import cache_folder
from edgeprune.recipe import load_recipe
from edgeprune.request import CompressRequest, Goal
from edgeprune.runtimes import runtime
from edgeprune.stages import price
from edgeprune.stages.run import Run, Subject
from edgeprune.stages.subject import make_subject
from edgeprune.target import load_target
from edgeprune.task import load_task
from edgeprune.workspace import Workspace

# A run needs a goal; profiling stops before any goal matters.
_NO_GOAL = Goal("speedup", 2.0)


@dataclass(frozen=True, eq=False)
class Profiled:
    """A task's network with its latency model, and the table that holds the measurements."""

    run: Run
    subject: Subject
    latency: LatencyModel
    table: Table


def measured(
    task_name: str, device_name: str, recipe_name: str, settings: Mapping[str, str]
) -> Profiled:
    """Measure what is missing from the device's table for one task.

    The working files stay in the user's cache, so profiling again only reads.

    Raises:
        InputError: The task, target or recipe cannot be used.
        UnavailableError: The device or its runtime is not there.
    """
    target, recipe = load_target(device_name), load_recipe(recipe_name)
    task = load_task(task_name, settings)
    machine = device(target.transport)
    found = fingerprint.take(machine, target)
    folder = cache_folder("profiling", f"{task.name}-{task.key[:16]}-{found.key}")
    request = CompressRequest(
        task_name, device_name, (_NO_GOAL,), recipe_name, None, folder, True, dict(settings)
    )
    with Workspace(folder, {"task": task.name, "device": target.name}) as space:
        run = Run(request, task, target, recipe, machine, runtime(target.runtime), found, space)
        subject = make_subject(run)
        latency = price.measure_latency(run, subject, price.choose(run, subject))
        return Profiled(run, subject, latency, open_table(found))


def profile_task(
    task_name: str, device_name: str, recipe_name: str, settings: Mapping[str, str]
) -> dict[str, Any]:
    """Profile one task, and say what is reachable.

    Returns:
        The task, device, fingerprint and table, the dense and the fastest latency in ms, and the
        number of structures and of records in the table.

    Raises:
        InputError: The task, target or recipe cannot be used.
        UnavailableError: The device or its runtime is not there.
    """
    found = measured(task_name, device_name, recipe_name, settings)
    latency = found.latency
    return {
        "task": found.run.task.name,
        "device": found.run.target.name,
        "fingerprint": found.run.fingerprint.key,
        "dense_ms": latency.dense_ms,
        "fastest_ms": latency.fastest_ms,
        "most_speedup": latency.dense_ms / latency.fastest_ms,
        "structures": len(found.subject.network.structures),
        "records": len(found.table),
        "table": str(found.table.path),
    }

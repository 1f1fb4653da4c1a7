"""The Python interface: what the command line does, as functions that return figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.quantity import parse_latency_ms, parse_speedup
from edgeprune.request import CompressRequest, Goal


def compress(
    task: str | Path,
    device: str | Path,
    *,
    target_latency: str | Sequence[str] = (),
    target_speedup: str | float | Sequence[str | float] = (),
    recipe: str | Path = "default",
    recovery_minutes: float | None = None,
    out: str | Path = "runs/edgeprune",
    settings: Mapping[str, str] | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Compress a task's model to one or several goals.

    Args:
        task: Built-in name, or path of a task file.
        device: Name of a target, or path of its file.
        target_latency: Latencies such as ``"10ms"``.
        target_speedup: Speed-ups over the dense model such as ``"2x"`` or ``2``.
        recipe: Name of a recipe, or path of its file.
        recovery_minutes: Bound on the training of each goal; None trains nothing.
        out: The run folder; a run that was interrupted goes on in it.
        settings: Arguments of the task's constructor, as text.
        dry_run: Stop after the reachable range.

    Returns:
        What ``report.json`` holds.

    Raises:
        InputError: The task, target, recipe, goals or run folder cannot be used.
        TargetMissed: A goal was not met; the report is in the run folder.
        UnavailableError: The device or its runtime is not there.
    """
    from edgeprune import pipeline

    latencies = [target_latency] if isinstance(target_latency, str) else list(target_latency)
    single = isinstance(target_speedup, str | float | int)
    speedups = [target_speedup] if single else list(target_speedup)  # type: ignore[arg-type]
    goals = (
        *(Goal("latency_ms", parse_latency_ms(text)) for text in latencies),
        *(Goal("speedup", parse_speedup(str(value))) for value in speedups),
    )
    request = CompressRequest(
        task=str(task),
        device=str(device),
        goals=goals,
        recipe=str(recipe),
        recovery_minutes=recovery_minutes,
        out=Path(out),
        dry_run=dry_run,
        settings=dict(settings or {}),
    )
    return pipeline.compress(request)


def inspect(
    task: str | Path,
    *,
    device: str | Path | None = None,
    recipe: str | Path = "default",
    settings: Mapping[str, str] | None = None,
    picture: str | Path | None = None,
) -> dict[str, Any]:
    """Say what of a task's model can be pruned, and what cannot and why.

    Args:
        task: Built-in name, or path of a task file.
        device: Name of a target, or path of its file, on which to measure what each structure
            takes; without it nothing is measured.
        recipe: Name of a recipe, or path of its file, that says what is offered.
        settings: Arguments of the task's constructor, as text.
        picture: A file that ends in ``.svg`` or ``.html``, to draw the network into.

    Returns:
        What ``edgeprune inspect --json`` prints; no structures where nothing can be removed.

    Raises:
        InputError: The task, target or recipe cannot be used, or the model cannot be captured.
        UnavailableError: The device or its runtime is not there.
    """
    from edgeprune.report.picture.files import check_name, write_picture
    from edgeprune.stages.inspect import inspect_task

    if picture is not None:
        check_name(Path(picture))
    target = None if device is None else str(device)
    found = inspect_task(str(task), settings or {}, target, str(recipe))
    record = found.record()
    if picture is not None:
        write_picture(Path(picture), found.network, record)
    return record

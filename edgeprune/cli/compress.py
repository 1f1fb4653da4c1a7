"""``edgeprune compress``: prune a task's model to one or several latencies."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeprune import console
from edgeprune.cli import options
from edgeprune.cli.defaults import Defaults, needed, read_defaults
from edgeprune.errors import InfeasibleTarget, InputError, TargetMissed
from edgeprune.quantity import parse_latency_ms, parse_minutes, parse_speedup
from edgeprune.recipe import load_recipe
from edgeprune.request import CompressRequest, Goal
from edgeprune.task_settings import parse_settings

HELP = """Prune a task's model until it meets a latency on a device, and prove it by measuring.

\b
Examples:
  edgeprune compress --task digits --device x86 --target-speedup 2x
  edgeprune compress --task mytask.py --device x86 --target-latency 10ms --recovery 25
  edgeprune compress --task sentence-embedding --set model=DIR --set sentences=TEXT
      --set pairs=TSV --device x86 --target-speedup 1.5x --target-speedup 2x --recovery none

Targets repeat: one run, a family of models. The run folder resumes after any interruption.
Options left out come from edgeprune.yaml in the working folder.
"""


def compress(
    device: options.Device = None,
    task: options.Task = None,
    settings: options.Settings = None,
    target_latency: Annotated[
        list[str] | None,
        typer.Option(metavar="TIME", help="Latency to meet, like 10ms; may be repeated."),
    ] = None,
    target_speedup: Annotated[
        list[str] | None,
        typer.Option(metavar="FACTOR", help="Speed-up to meet, like 2x; may be repeated."),
    ] = None,
    recipe: options.Recipe = None,
    recovery: Annotated[
        str | None,
        typer.Option(
            metavar="none|MINUTES",
            help="Minutes of training for each target; the recipe says when left out.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Run folder; runs/TASK-DEVICE when left out."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Stop after the reachable range and the cost estimate."),
    ] = False,
    as_json: options.AsJson = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Parse, run the pipeline, show the report."""
    defaults = read_defaults()
    given_task = needed(task, defaults.task, "--task", "NAME")
    given_device = needed(device, defaults.device, "--device", "x86")
    given_recipe = recipe or defaults.recipe or "default"
    request = CompressRequest(
        task=given_task,
        device=given_device,
        goals=_goals(target_latency or [], target_speedup or [], defaults),
        recipe=given_recipe,
        recovery_minutes=_recovery(recovery, defaults, given_recipe),
        out=Path(
            out or defaults.out or f"runs/{_stem(given_task)}-{_stem(given_device)}"
        ).expanduser(),
        dry_run=dry_run,
        settings=defaults.settings(parse_settings(settings or [])),
    )
    _run(request, as_json)


def _run(request: CompressRequest, as_json: bool) -> None:
    from edgeprune import pipeline
    from edgeprune.report.record import read_report

    try:
        report = pipeline.compress(request)
    except InfeasibleTarget:
        raise
    except TargetMissed:
        _show(read_report(request.out), request.out, as_json)
        raise
    _show(report, request.out, as_json)


def _show(report: dict[str, Any], folder: Path, as_json: bool) -> None:
    from edgeprune.report.summary import show_summary

    if as_json:
        console.show_json(report)
    elif report.get("dry_run"):
        console.show_text(
            f"dense {report['dense_ms']:.3f} ms, reachable down to {report['fastest_ms']:.3f} ms "
            f"({report['most_speedup']:.2f}x)\n"
            f"about {console.duration(60 * report['minutes'])} of work after that"
        )
    else:
        show_summary(report)
        console.message(f"everything is in {folder}; edgeprune report {folder} shows more")


def _goals(latencies: list[str], speedups: list[str], defaults: Defaults) -> tuple[Goal, ...]:
    if not latencies and not speedups:
        latencies = [str(value) for value in defaults.target_latency]
        speedups = [str(value) for value in defaults.target_speedup]
    goals = [
        *(Goal("latency_ms", parse_latency_ms(text)) for text in latencies),
        *(Goal("speedup", parse_speedup(text)) for text in speedups),
    ]
    repeated = {goal for goal in goals if goals.count(goal) > 1}
    if repeated:
        raise InputError(f"target {repeated.pop()} is given twice; keep one")
    return tuple(goals)


def _recovery(text: str | None, defaults: Defaults, recipe: str) -> float | None:
    if text is None and defaults.recovery is not None:
        text = str(defaults.recovery)
    if text is None:
        return load_recipe(recipe).recovery.minutes or None
    return parse_minutes(text)


def _stem(name: str) -> str:
    return Path(name).stem

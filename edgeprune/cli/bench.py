"""``edgeprune bench``: time any artifact or run folder, alone or against another."""

from pathlib import Path
from typing import Annotated

import typer

from edgeprune import console
from edgeprune.cli import options
from edgeprune.cli.defaults import needed, read_defaults

HELP = """Time an artifact or the artifacts of a run, interleaved, with intervals.

\b
Examples:
  edgeprune bench runs/digits-x86 --device x86
  edgeprune bench small.xml --against dense.xml --device x86
  edgeprune bench runs/digits-x86 --device x86 --publish --json

A comparison times one model against itself as well, and calls a difference only what is larger.
"""

_COLUMNS = ("name", "median_ms", "p95_ms", "ci95_ms", "throughput_per_s", "samples")


def bench(
    path: Annotated[
        Path, typer.Argument(metavar="ARTIFACT|RUN_DIR", help="What to time: .xml or run folder.")
    ],
    device: options.Device = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="Another artifact to compare with.")
    ] = None,
    publish: Annotated[
        bool,
        typer.Option("--publish", help="Six fresh processes, 60 s and 1,024 samples or more."),
    ] = False,
    as_json: options.AsJson = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Find the artifacts, measure, show."""
    from edgeprune import devices, locate
    from edgeprune.latency import bench as benching
    from edgeprune.latency.fingerprint import take
    from edgeprune.runtimes import runtime
    from edgeprune.target import load_target

    target = load_target(needed(device, read_defaults().device, "--device", "x86"))
    suffix = runtime(target.runtime).suffix
    artifacts = benching.find_artifacts(path, suffix)
    if against is not None:
        other = benching.find_artifacts(against, suffix)
        artifacts = {**{f"against {name}": p for name, p in other.items()}, **artifacts}
    place = devices.device(target.transport)
    fingerprint = take(place, target)
    mode = benching.PUBLISHABLE if publish else benching.QUICK
    with console.progress(f"timing on {target.name} ({mode.name})", 1.0) as bar:
        found = benching.bench(
            place,
            target,
            fingerprint,
            artifacts,
            mode=mode,
            cache_dir=locate.cache_folder(target.runtime),
            on_round=bar.update,
        )
    if as_json:
        console.show_json(found)
        return
    rows = [
        {**row, "ci95_ms": " to ".join(f"{edge:.4g}" for edge in row["ci95_ms"])}
        for row in found["artifacts"]
    ]
    state = benching.describe_state(found["state"])
    title = f"{target.name}, {mode.name}, {mode.processes} processes, {state}"
    console.show_table(_COLUMNS, rows, title=title)
    for comparison in found["comparisons"]:
        low, high = comparison["ci95"]
        console.show_text(
            f"{comparison['name']} takes {comparison['ratio']:.3f} of {comparison['against']} "
            f"({low:.3f} to {high:.3f}; noise {comparison['noise']:.1%}): {comparison['verdict']}"
        )
    if found["drifted_rounds"]:
        console.warning(
            f"the machine drifted over 5% around {found['drifted_rounds']} of "
            f"{found['rounds']} rounds; close other programs for steadier figures"
        )

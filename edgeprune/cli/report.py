"""``edgeprune report``: a run as a person reads it."""

from pathlib import Path
from typing import Annotated

import typer

from edgeprune import console
from edgeprune.cli import options

HELP = """Show a run: latency, quality and size of every target, and what was removed.

\b
Examples:
  edgeprune report runs/digits-x86
  edgeprune report runs/digits-x86 --json
"""


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a finished run.")],
    as_json: options.AsJson = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Read the run's record and print it."""
    from edgeprune.report.formats import show_formats
    from edgeprune.report.record import read_report
    from edgeprune.report.removed import removed_table
    from edgeprune.report.summary import show_removed, show_summary

    record = read_report(run_dir)
    removed = removed_table(record, run_dir)
    if as_json:
        console.show_json({**record, "removed": removed})
        return
    show_summary(record)
    show_removed(record, removed)
    show_formats(record)

"""Does the program beside an artifact find the latency that edgeprune measures?

Runs the program of every result of a run folder and edgeprune's own timing in turn, each in fresh
processes, and prints both medians and their difference.

    python tools/check_app_program.py runs/demo --tries 5 --json app.json
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rows import add_json_option, show_rows

from edgeprune.console import progress
from edgeprune.devices import device
from edgeprune.latency.measure import time_interleaved
from edgeprune.report.app_program import INPUTS, PROGRAM
from edgeprune.report.record import read_report
from edgeprune.target import Target, load_target


def program_ms(folder: Path) -> float:
    """The median that the program prints."""
    done = subprocess.run(
        [sys.executable, str(folder / PROGRAM)], capture_output=True, text=True, check=True
    )
    found = re.search(r"median ([\d.]+) ms", done.stdout)
    if found is None:
        raise SystemExit(f"{folder / PROGRAM} printed no median: {done.stdout!r}")
    return float(found[1])


def our_ms(target: Target, artifact: Path, seconds: float) -> float:
    """The median of edgeprune's own timing in one fresh process."""
    machine = device(target.transport)
    inputs = artifact.parent / INPUTS
    measurement = time_interleaved(machine, target, {"it": artifact}, inputs, seconds=seconds)
    return measurement.stats("it").median


def check(run: Path, result: dict[str, Any], target: Target, tries: int) -> dict[str, Any]:
    """One row: both figures over all tries."""
    artifact = run / result["artifact"]
    theirs, ours = [], []
    with progress(f"{result['goal']}", tries) as bar:
        for _ in range(tries):
            theirs.append(program_ms(artifact.parent))
            ours.append(our_ms(target, artifact, 5.0))
            bar.advance()
    program, edgeprune = float(np.median(theirs)), float(np.median(ours))
    return {
        "goal": result["goal"],
        "program_ms": round(program, 4),
        "edgeprune_ms": round(edgeprune, 4),
        "difference_percent": round(100 * (program / edgeprune - 1), 2),
        # Other work on the machine only ever slows a try down.
        "quickest_difference_percent": round(100 * (min(theirs) / min(ours) - 1), 2),
        "spread_percent": round(100 * (max(ours) / min(ours) - 1), 2),
        "tries": tries,
    }


def main() -> None:
    """Check every result of the run folder and print a row each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--device", help="target; the run's own when left out")
    parser.add_argument("--tries", type=int, default=5, help="pairs of fresh processes")
    add_json_option(parser)
    options = parser.parse_args()
    record = read_report(options.run)
    target = load_target(options.device or record["device"])
    rows = [check(options.run, result, target, options.tries) for result in record["results"]]
    show_rows(rows, options.json)


if __name__ == "__main__":
    main()

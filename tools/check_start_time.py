"""How long the command line takes to start: fresh processes, median, quickest and worst.

python tools/check_start_time.py --runs 15 --json start.json
"""

import argparse
import subprocess
import sys
import time

import numpy as np
from rows import add_json_option, show_rows

COMMANDS = (("--help",), ("--version",), ("compress", "--help"), ("report", "--help"))


def start_s(arguments: tuple[str, ...]) -> float:
    """Seconds of one fresh process."""
    command = [sys.executable, "-m", "edgeprune.cli.app", *arguments]
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    """Time every command and print a row each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="processes a command")
    add_json_option(parser)
    options = parser.parse_args()
    rows = []
    for arguments in COMMANDS:
        start_s(arguments)  # the first one reads the files from disk
        seconds = [start_s(arguments) for _ in range(options.runs)]
        rows.append(
            {
                "command": " ".join(("edgeprune", *arguments)),
                "median_s": round(float(np.median(seconds)), 3),
                "quickest_s": round(min(seconds), 3),
                "worst_s": round(max(seconds), 3),
                "runs": len(seconds),
            }
        )
    show_rows(rows, options.json)


if __name__ == "__main__":
    main()

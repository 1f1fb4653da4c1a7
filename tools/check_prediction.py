"""Predict the latency of random plans from the table, measure them, and print the errors.

    python tools/check_prediction.py --task NAME|FILE [--set KEY=VALUE]... [--device x86]
        [--plans 30] [--seed 0] [--head-width PATTERN]... [--json FILE]

The network is profiled first where the table lacks it. The plans are then measured in processes
of their own, interleaved with the dense model, and kept out of the table. The file takes a row for
each plan and, as plan "all", one with the median and the worst errors.
"""

import argparse
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rows import add_json_option, show_rows

from edgeprune import console
from edgeprune.compression.alternatives import offered_choices
from edgeprune.compression.calibration import furthest_from
from edgeprune.compression.constraints import with_head_width
from edgeprune.devices import device as find_device
from edgeprune.graph.capture import capture
from edgeprune.graph.network import analyse
from edgeprune.latency.fingerprint import take
from edgeprune.latency.prediction_check import check_prediction, random_plans, summarise
from edgeprune.latency.profiler import profile_network
from edgeprune.latency.store import open_table
from edgeprune.latency.table import Table
from edgeprune.recipe import SearchRecipe
from edgeprune.target import load_target
from edgeprune.task import load_task
from edgeprune.task_settings import parse_settings

_BATCHES = 256  # of the task, among which the sample of the capture is looked for


def main() -> None:
    """Profile, predict, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", default="x86")
    parser.add_argument("--plans", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="+", default=SearchRecipe().formats, metavar="FAMILY")
    parser.add_argument("--head-width", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--levels", type=int, default=48, help="most levels of one structure")
    add_json_option(parser)
    options = parser.parse_args()

    torch.set_num_threads(1)
    target = load_target(options.device)
    task = load_task(options.task, parse_settings(options.set))
    # As a run captures it, so that both share one table.
    examples = task.example_inputs()
    sample = furthest_from(examples, islice(task.batches(), _BATCHES))
    network = analyse(capture(task.model(), examples, sample))
    network, _ = with_head_width(network, options.head_width)
    recipe = SearchRecipe(max_levels=options.levels, formats=tuple(options.formats))
    choices = offered_choices(network, target, recipe)
    device = find_device(target.transport)
    fingerprint = take(device, target)
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        work = Path(folder)
        with console.progress("profiling") as bar:
            model = profile_network(
                network,
                target,
                device,
                choices,
                open_table(fingerprint),
                work,
                lambda done, total, note: bar.update(done, total=total, note=note),
            )
        with console.progress("measuring random plans") as bar:
            rows = check_prediction(
                network,
                target,
                device,
                model,
                choices,
                random_plans(choices, options.plans, options.seed),
                Table(work / "check.jsonl", fingerprint),
                work,
                lambda done, total, note: bar.update(done, total=total, note=note),
            )
    show_errors(task.name, rows, model.figures, options.json)


def show_errors(
    task: str, rows: list[dict[str, Any]], figures: dict[str, Any], json_file: Path | None
) -> None:
    """The plans and, as plan "all", their median and worst errors with the model's own figures."""
    summary = {"task": task, "plan": "all", **summarise(rows), **figures}
    show_rows([{"task": task, **row} for row in rows], json_file, [summary])


if __name__ == "__main__":
    main()

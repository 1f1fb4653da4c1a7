"""How good a latency model is: random plans, predicted, then measured in fresh processes."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.devices import Device
from edgeprune.graph.choices import Choices
from edgeprune.latency.design import design_formats
from edgeprune.latency.measure import save_inputs
from edgeprune.latency.model import LatencyModel
from edgeprune.latency.profiler import undisturbed_ms
from edgeprune.latency.signature import plan_signature
from edgeprune.latency.table import Table
from edgeprune.latency.variants import VariantRunner
from edgeprune.target import Target

if TYPE_CHECKING:
    from edgeprune.graph.network import Network

Levels = dict[str, int]


def random_plans(choices: Choices, count: int, seed: int) -> list[Levels]:
    """Plans as a search might give them: each with a share of its own, levels spread around it."""
    random = np.random.default_rng(seed)
    plans = []
    for _ in range(count):
        share, spread = random.uniform(0.1, 0.95), random.uniform(1.0, 6.0)
        plans.append(
            {
                name: levels[
                    round(random.beta(spread * share, spread * (1 - share)) * (len(levels) - 1))
                ]
                for name, levels in choices.levels.items()
            }
        )
    return design_formats(choices, plans, seed)


def check_prediction(
    network: "Network",
    target: Target,
    device: Device,
    model: LatencyModel,
    choices: Choices,
    plans: list[Levels],
    table: Table,
    workdir: Path,
    progress: Callable[[float, float, str], None] | None = None,
) -> list[dict[str, Any]]:
    """Measure plans and the dense model, unprofiled and interleaved; a row for each plan.

    Args:
        network: The network that the model is of.
        target: Runtime, threads and precision.
        device: Where to measure.
        model: What predicts.
        choices: What it knows, and plans choose from.
        plans: What to measure.
        table: For these measurements alone, so that no model is ever fitted to them.
        workdir: For the artifacts, which are removed afterwards.
        progress: Called with what is done, the total, and a note.

    Returns:
        Rows with the predicted and measured time in ms, the error in percent, and the same with
        both sides relative to the dense model.
    """
    full = {name: structure.units for name, structure in network.structures.items()}
    full.update(dict.fromkeys(choices.sites, 0))
    inputs = save_inputs(
        [value.numpy() for value in network.captured.example_inputs], workdir / "inputs.npz"
    )
    runner = VariantRunner(network, choices, target, device, table, workdir, inputs, seed=1)
    complete = [{**full, **plan} for plan in plans]
    named = {plan_signature("check", levels): levels for levels in complete}
    dense = plan_signature("check", full)
    for number, (name, levels) in enumerate({**named, dense: full}.items()):
        if progress is not None:
            progress(number, 2 * len(named), f"building plan {number + 1}")
        runner.build(name, levels)
    for share in runner.time_whole(named, dense):
        if progress is not None:
            progress(len(named) * (1 + share), 2 * len(named), "timing")
    runner.remove_artifacts()
    measured = {
        name: undisturbed_ms(table.all("whole", name), target.threads) for name in (*named, dense)
    }
    slower = measured[dense] / model.dense_ms
    rows = []
    for name, levels in named.items():
        predicted = model.total_ms(levels)
        samples = np.concatenate([record["samples_ms"] for record in table.all("whole", name)])
        rows.append(
            {
                "plan": name.partition(":")[2],
                "speedup": measured[dense] / measured[name],
                "predicted_ms": predicted,
                "measured_ms": measured[name],
                "median_ms": float(np.median(samples)),
                "error_percent": 100 * (predicted / measured[name] - 1),
                "ratio_error_percent": 100 * (predicted * slower / measured[name] - 1),
            }
        )
    return rows


def summarise(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Median and worst error, in percent, of the times and of the ratios to dense."""
    errors = np.abs([row["error_percent"] for row in rows])
    ratios = np.abs([row["ratio_error_percent"] for row in rows])
    return {
        "plans": len(rows),
        "median_error_percent": float(np.median(errors)),
        "worst_error_percent": float(np.max(errors)),
        "median_ratio_error_percent": float(np.median(ratios)),
        "worst_ratio_error_percent": float(np.max(ratios)),
    }

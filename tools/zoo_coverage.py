"""How much of each architecture of a zoo can be pruned, and whether the result is exact.

    python tools/zoo_coverage.py [--zoo FILE] [--seeds N] [--json FILE] [CASE ...]

For every case a share of the units of every structure is removed at random, and the shrunk graph
is compared with the case's own module in which the removed weights are zero (two inputs, each
called twice). A zoo is a Python file with a dict CASES: name -> {"build": () -> (module, inputs)}.
"""

import argparse
import importlib.util
import logging
import random
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from masked_reference import (
    flat,
    other_inputs,
    plain_copy,
    run_masked,
    worst_difference,
    zero_removed,
)
from rows import add_json_option, show_rows

from edgeprune import console

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-4


def load_zoo(path: Path) -> ModuleType:
    """The zoo's module."""
    spec = importlib.util.spec_from_file_location("zoo", path)
    if spec is None or spec.loader is None or not path.exists():
        raise SystemExit(f"no zoo at {path}; name one with --zoo")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def choose(structures: dict[str, Any], rng: random.Random, ratio: float | None) -> dict[str, Any]:
    """Survivors: half of every family, or a random share of each."""
    keep = {}
    for name, structure in structures.items():
        share = rng.random() if ratio is None else ratio
        count = min(structure.units, max(1, round(structure.units * (1 - share))))
        keep[name] = sorted(rng.sample(range(structure.units), count))
    return keep


def compare(model: Any, inputs: Any, network: Any, keep: Any, seed: int) -> tuple[float, int, Any]:
    """Worst relative difference, normalisations over survivors, and the shrunk graph."""
    shrunk = network.shrink(keep)
    masked = plain_copy(model)
    zero_removed(masked, network.structures, keep)
    generator = torch.Generator().manual_seed(seed)
    worst, renormalised = 0.0, 0
    for tried in (inputs, other_inputs(inputs, generator)):
        for _ in range(2):
            with torch.no_grad():
                have = flat(shrunk(*(x.clone() for x in tried)))
            want, renormalised = run_masked(masked, tried)
            worst = max(worst, worst_difference(have, want))
    return worst, renormalised, shrunk


def empty_each(model: Any, inputs: Any, network: Any) -> tuple[float, list[str]]:
    """Take out every removable structure alone; the worst difference and the wrong ones."""
    worst, wrong = 0.0, []
    for name, structure in network.structures.items():
        if structure.removable:
            error, _, _ = compare(model, inputs, network, {name: []}, 0)
            worst = max(worst, error)
            if not error <= TOLERANCE:
                wrong.append(name)
    return worst, wrong


def run_case(name: str, build: Any, seeds: int, empty: bool) -> dict[str, Any]:
    """One row of the table."""
    from edgeprune.graph.capture import capture
    from edgeprune.graph.network import analyse

    row: dict[str, Any] = {"case": name, "outcome": "failed"}
    try:
        model, inputs = build()
        network = timed(row, "analyse_s", lambda: analyse(capture(model, inputs)))
        row |= coverage(network)
        total = sum(p.numel() for p in model.parameters())
        worst, renormalised, left = 0.0, 0, total
        for seed in range(seeds):
            keep = choose(network.structures, random.Random(seed), 0.5 if seed == 0 else None)
            error, used, shrunk = compare(model, inputs, network, keep, seed)
            worst, renormalised = max(worst, error), max(renormalised, used)
            if seed == 0:
                left = sum(p.numel() for p in shrunk.parameters())
        if empty:
            error, row["wrong_when_empty"] = empty_each(model, inputs, network)
            worst = max(worst, error)
        row |= {"max_rel_diff": worst, "params_removed": 1 - left / total}
        row["renormalised"] = renormalised
        row["outcome"] = outcome(worst, bool(network.structures))
    except Exception as error:  # a case must not end the table
        row["error"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return row


def timed(row: dict[str, Any], key: str, action: Any) -> Any:
    """Result of an action whose seconds are written to the row."""
    start = time.perf_counter()
    result = action()
    row[key] = round(time.perf_counter() - start, 3)
    return result


def outcome(worst: float, pruned: bool) -> str:
    """Exact, inexact, or nothing to prune."""
    if not pruned:
        return "nothing"
    return "exact" if worst <= TOLERANCE else "inexact"


def coverage(network: Any) -> dict[str, Any]:
    """What is prunable, and what froze by which operator."""
    summary = network.summary()
    frozen = Counter(f"{f.operator}@{f.source or f.node}" for f in network.frozen)
    return {
        "structures": len(network.structures),
        "units": sum(s.units for s in network.structures.values()),
        "removable": sum(s.removable for s in network.structures.values()),
        "share_prunable": summary.share_prunable,
        "unprunable": ", ".join(summary.unprunable),
        "frozen": ", ".join(f"{where} x{count}" for where, count in frozen.most_common(6)),
    }


def main() -> int:
    """Print the table; exit 1 if any case is not exact."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help="names of cases (default: all)")
    parser.add_argument("--zoo", type=Path, default=ROOT.parent / "shared" / "zoo.py")
    parser.add_argument("--seeds", type=int, default=1, help="random choices per case")
    parser.add_argument("--empty", action="store_true", help="empty each removable structure, too")
    add_json_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    cases = load_zoo(options.zoo).CASES
    rows = []
    for name in options.cases or cases:
        rows.append(run_case(name, cases[name]["build"], options.seeds, options.empty))
        console.message(f"{name}: {rows[-1]['outcome']}")
    show_rows(rows, options.json)
    exact = sum(row["outcome"] == "exact" for row in rows)
    print(f"{exact} of {len(rows)} exact")
    return 0 if exact == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())

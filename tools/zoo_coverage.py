"""How much of each architecture of a zoo can be pruned, and whether the result is exact.

    python tools/zoo_coverage.py [--zoo FILE]... [--transformers] [--seeds N] [--deploy] [--sizes]
                                 [--write-back] [--head-width] [--limit SECONDS] [--json FILE]
                                 [CASE ...]

For every case half of the units of every structure is removed at random, then another share of
each (one choice a further seed), then half of each structure alone; every time the shrunk graph
is compared with the case's own module in which the removed weights are zero (two inputs, each
called twice). With ``--write-back`` half of all is written into the case's own module, and from
there by its state dict into a fresh one. Every case runs in a process of its own. Where
Torch-Pruning is installed, what it makes of the case stands beside ours.

A zoo is a Python file with a dict CASES: name -> {"build": () -> (module, inputs)};
``--transformers`` stands for every base model of the installed transformers library.

Outcomes: ``exact``; ``exact-but-norm``, where normalisation statistics over the survivors explain
the whole difference; ``wrong``; ``frozen``, nothing to prune; ``failed``, with the step that did;
``left-out``, a case that could not be built here.
"""

import argparse
import importlib.util
import logging
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from deployed import deployed_outcome
from exactness import TOLERANCE, Difference, difference, half_of_each, random_share_of_each
from isolated import Row, run_isolated
from other_sizes import other_sizes_outcome
from rows import add_json_option, error_line, show_rows, write_rows
from torch_pruning_peer import installed, peer_outcome
from written_back import written_back_outcome

from edgeprune import console
from edgeprune.compression.constraints import with_head_width
from edgeprune.graph.capture import Captured, capture
from edgeprune.graph.network import Network, analyse

ROOT = Path(__file__).resolve().parents[1]
TRANSFORMERS = Path(__file__).parent / "zoo" / "transformers_models.py"
GOOD = ("exact", "exact-but-norm")
_RANK = ("exact", "exact-but-norm", "wrong")

Report = Callable[[Row], None]


def load_zoo(path: Path) -> ModuleType:
    """The zoo's module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise SystemExit(f"no zoo at {path}; name one with --zoo")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Checks:
    """What is looked at besides half of all structures together and of each alone.

    Attributes:
        seeds: Random choices of what is removed.
        empty: Whether removable structures are emptied, too.
        deploy: Whether OpenVINO is compared.
        sizes: Whether other batches and lengths are.
        write_back: Whether the result is written into the case's own module.
        head_width: Whether heads are narrowed, too.
    """

    seeds: int = 1
    empty: bool = False
    deploy: bool = False
    sizes: bool = False
    write_back: bool = False
    head_width: bool = False


def run_case(build: Any, checks: Checks) -> Row:
    """The row of one case, in this process."""
    row: Row = {}
    _examine(build, checks, row.update)
    return row


def _examine(build: Any, checks: Checks, report: Report) -> None:
    """Report every column of a case; the last step named is the one that failed, if any did."""
    try:
        report({"outcome": "failed", "step": "build"})
        model, inputs = build()
        report({"step": "capture"})
        captured, seconds = timed(lambda: capture(model, inputs))
        report({"step": "analyse", "capture_s": seconds})
        network, seconds = timed(lambda: _analysed(captured, checks.head_width))
        report({"step": "check", "analyse_s": seconds} | coverage(network))
        if not network.structures:
            report({"outcome": "frozen", "step": "", "reason": "nothing can be removed"})
            return
        tries = list(_tries(network, checks.seeds, checks.empty))
        found = [(what, difference(model, inputs, network, keep)) for what, keep in tries]
        report(_verdict(model, found))
        if checks.deploy:
            report({"step": "deploy"})
            report(deployed_outcome(found[0][1].pruned, inputs))
        if checks.sizes:
            report({"step": "sizes"})
            report(other_sizes_outcome(model, inputs, checks.deploy))
        if checks.write_back:
            report({"step": "write back"})
            report(written_back_outcome(build, network, tries[0][1]))
        report({"step": ""})
    except Exception as error:  # a case must not end the table
        if type(error).__name__ == "LeftOut":
            report({"outcome": "left-out", "reason": str(error)})
        else:
            report({"reason": error_line(error)})


def _analysed(captured: Captured, head_width: bool) -> Network:
    network = analyse(captured)
    heads = [name for name, s in network.structures.items() if s.kind == "heads"]
    return with_head_width(network, heads if head_width else [])[0]


def _tries(network: Any, seeds: int, empty: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is removed each time, and what to call it."""
    structures = network.structures
    yield "half of all", half_of_each(structures, random.Random(0))
    for seed in range(1, seeds):
        yield f"shares of all, {seed}", random_share_of_each(structures, random.Random(seed))
    for name, structure in structures.items():
        if structure.units > 1:
            yield f"half of {name}", half_of_each({name: structure}, random.Random(0))
        if empty and structure.removable:
            yield f"all of {name}", {name: []}


def _verdict(model: Any, found: list[tuple[str, Difference]]) -> Row:
    """Outcome, worst difference and what it was seen with."""
    what, worst = max(found, key=lambda item: (_RANK.index(item[1].outcome), item[1].accepted))
    total = sum(p.numel() for p in model.parameters())
    left = sum(p.numel() for p in found[0][1].pruned.parameters())
    return {
        "outcome": worst.outcome,
        "max_rel_diff": worst.accepted,
        "params_removed": 1 - left / total,
        "reaction": min(d.reaction for _, d in found),
        "reason": _reason(what, worst),
    }


def _reason(what: str, worst: Difference) -> str:
    if worst.outcome == "wrong":
        return f"wrong without {what}"
    if worst.accepted <= TOLERANCE:
        return ""
    in_double = f"{min(worst.in_double):.1e} in float64, " if worst.in_double else ""
    return (
        f"{worst.accepted:.1e} without {what} is rounding: {in_double}"
        f"{worst.by_last_bits:.1e} by the last bits of the weights"
    )


def timed(action: Any) -> tuple[Any, float]:
    """Result of an action and its seconds."""
    start = time.perf_counter()
    result = action()
    return result, round(time.perf_counter() - start, 3)


def coverage(network: Any) -> Row:
    """What is prunable, and what froze by which operator."""
    summary = network.summary()
    frozen = Counter(f"{f.operator}@{f.source or f.node}" for f in network.frozen)
    return {
        "structures": len(network.structures),
        "units": sum(s.units for s in network.structures.values()),
        "removable": sum(s.removable for s in network.structures.values()),
        "share_prunable": summary.share_prunable,
        "unprunable": ", ".join(summary.unprunable),
        "frozen_by": ", ".join(f"{where} x{count}" for where, count in frozen.most_common(6)),
    }


def _cases(options: argparse.Namespace) -> dict[str, Any]:
    """Cases by name."""
    found: dict[str, Any] = {}
    zoos = options.zoo or ([] if options.transformers else [ROOT.parent / "shared" / "zoo.py"])
    for path in zoos:
        found |= load_zoo(path).CASES
    if options.transformers:
        zoo = load_zoo(TRANSFORMERS)
        found |= {name: {"build": partial(zoo.build, name)} for name in zoo.model_names()}
    unknown = [name for name in options.cases if name not in found]
    if unknown:
        raise SystemExit(f"no case {unknown[0]!r} in these zoos")
    return {name: found[name] for name in options.cases or found}


def run_all(cases: dict[str, Any], options: argparse.Namespace) -> list[Row]:
    """A row for every case, each in its own process."""
    rows = []
    checks = Checks(
        options.seeds,
        options.empty,
        options.deploy,
        options.sizes,
        options.write_back,
        options.head_width,
    )
    for number, (name, case) in enumerate(cases.items(), 1):
        row: Row = {"name": name}
        work = partial(_examine, case["build"], checks)
        row |= _isolated(work, options.limit, "outcome", "reason")
        if installed() and not options.transformers:
            peer = partial(_report_peer, case)
            row |= _isolated(peer, options.limit, "torch_pruning", "torch_pruning_reason")
        rows.append(row)
        if options.json is not None:  # hours of work survive a stop
            write_rows(rows, options.json)
        console.message(f"{number}/{len(cases)} {name}: {row['outcome']}")
    return rows


def _isolated(work: Callable[[Report], None], limit_s: float, outcome: str, why: str) -> Row:
    """What ``work`` reported; where it did not end by itself, that is the outcome."""
    row, reason = run_isolated(work, limit_s)
    return row | {outcome: "failed", why: reason} if reason else row


def _report_peer(case: Any, report: Report) -> None:
    report(peer_outcome(case))


def summary_line(rows: list[Row]) -> str:
    """How many came to which outcome."""
    counts = Counter(row["outcome"] for row in rows)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    captured = [row for row in rows if "analyse_s" in row or row.get("step") == "analyse"]
    good = sum(row["outcome"] in GOOD for row in captured)
    line = f"{len(rows)} cases: {outcomes}; {good} of {len(captured)} captured are exact"
    deployed = [row for row in rows if "openvino" in row]
    if deployed:
        equal = sum(row["openvino"] == "equal" for row in deployed)
        line += f", {equal} of {len(deployed)} of these equal in OpenVINO"
    sized = [row for row in rows if row.get("sizes", "none") != "none"]
    if sized:
        equal = sum(row.get("at_other_sizes", "").startswith("equal") for row in sized)
        line += f", {equal} of {len(sized)} at other sizes"
    return line


def main() -> int:
    """Print the table; exit 1 if any case is wrong or failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help="names of cases (default: all)")
    parser.add_argument("--zoo", type=Path, action="append", help="a file with cases; repeatable")
    parser.add_argument("--transformers", action="store_true", help="the library's base models")
    parser.add_argument("--seeds", type=int, default=1, help="random choices per case")
    parser.add_argument("--empty", action="store_true", help="empty each removable structure, too")
    parser.add_argument("--deploy", action="store_true", help="compare in OpenVINO, too")
    parser.add_argument("--sizes", action="store_true", help="try other batches and lengths, too")
    parser.add_argument("--write-back", action="store_true", help="write into the own module, too")
    parser.add_argument("--head-width", action="store_true", help="narrow heads, too")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds a case may take")
    add_json_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rows = run_all(_cases(options), options)
    show_rows(rows, options.json)
    print(summary_line(rows))
    return 0 if all(row["outcome"] not in ("wrong", "failed") for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

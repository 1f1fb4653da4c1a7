"""Time the exact search on synthetic tables of the sizes edgeprune meets, and larger.

    python tools/bench_search.py [--case NAME]... [--json FILE]

Every row states the seconds of one call (start-up of the solver process included), the gap to
the solver's bound and to the independent Lagrangian bound, both in percent.
"""

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
from rows import add_json_option, show_rows

from edgeprune.search.dominance import drop_dominated
from edgeprune.search.fastest import fastest_plan
from edgeprune.search.problem import Group, Pair, Problem
from edgeprune.search.solve import solve

Row = dict[str, str | float | int]


def independent(rng: np.random.Generator, layers: int, options: int) -> Problem:
    """Layers with formats and levels mixed: many alternatives, most of them dominated."""
    groups = []
    for i in range(layers):
        keep = rng.uniform(0.02, 1.0, options)
        time_ms = rng.uniform(0.5, 1.5) * (0.05 + keep) * rng.uniform(0.7, 1.3, options)
        distortion = rng.lognormal() * (1 - keep) ** 2 * rng.uniform(0.5, 1.5, options)
        groups.append(Group(f"layer{i}", tuple(range(options)), distortion, time_ms))
    return Problem(tuple(groups))


def encoder(rng: np.random.Generator, layers: int) -> Problem:
    """Heads and neurons of every layer, each with a jump and a line of time."""
    groups = []
    for i in range(layers):
        for kind, units, jump_ms, step_ms in (("heads", 12, 0.045, 0.08), ("ffn", 48, 0.026, 0.03)):
            kept = np.arange(units + 1)
            time_ms = np.where(kept > 0, jump_ms, 0.0) + step_ms * kept
            distortion = rng.lognormal() * (1 - kept / units) ** rng.uniform(1.5, 3)
            groups.append(Group(f"{i}.{kind}", tuple(kept.tolist()), distortion, time_ms))
    return Problem(tuple(groups))


def residual(rng: np.random.Generator, stages: int, blocks: int, levels: int) -> Problem:
    """Inner channels of each block meet the width of the residual stream they read and write."""
    groups, pairs = [], []
    share = np.linspace(1 / levels, 1, levels)

    def group(name: str, weight: float, free: bool) -> None:
        kept = np.concatenate(([0.0], share)) if free else share
        distortion = weight * rng.lognormal() * (1 - kept) ** 2
        time_ms = 0.002 * (kept > 0) + 0.005 * kept
        groups.append(Group(name, tuple(range(len(kept))), distortion, time_ms))

    for stage in range(stages):
        group(f"width{stage}", 10.0, free=False)
        for block in range(blocks):
            name = f"stage{stage}.block{block}"
            group(name, 1.0, free=True)
            inner = np.concatenate(([0.0], share))
            reads = [stage - 1, stage] if block == 0 and stage else [stage, stage]
            for width in dict.fromkeys(reads):
                convolutions = reads.count(width)
                steps = np.ceil(inner[:, None] * 4) * np.ceil(share[None, :] * 4) / 16
                pairs.append(Pair(name, f"width{width}", 0.02 * convolutions * steps))
    return Problem(tuple(groups), tuple(pairs))


def chain(rng: np.random.Generator, layers: int, levels: int, formats: int) -> Problem:
    """Every layer's time depends on its own and its predecessor's level, in several formats."""
    options = levels * formats
    share = np.repeat(np.linspace(1 / levels, 1, levels), formats)
    speed = np.tile(np.linspace(1.0, 0.3, formats), levels)
    loss = np.tile(np.linspace(0.0, 0.05, formats) ** 1.2, levels)
    groups = [
        Group(
            f"layer{i}",
            tuple(range(options)),
            rng.lognormal() * ((1 - share) ** 2 + loss * rng.uniform(0.5, 1.5, options)),
            0.01 * rng.uniform(0.8, 1.2, options),
        )
        for i in range(layers)
    ]
    pairs = [
        Pair(
            f"layer{i}",
            f"layer{i + 1}",
            share[:, None] * share * speed * rng.uniform(0.9, 1.1, (options, options)),
        )
        for i in range(layers - 1)
    ]
    return Problem(tuple(groups), tuple(pairs))


CASES: dict[str, Callable[[np.random.Generator], Problem]] = {
    "encoder 6 layers, 12 groups": lambda rng: encoder(rng, 6),
    "encoder 24 layers, 48 groups": lambda rng: encoder(rng, 24),
    "residual 3 x 9 blocks, widths": lambda rng: residual(rng, 3, 9, 8),
    "residual 4 x 12 blocks, 16 levels": lambda rng: residual(rng, 4, 12, 16),
    "24 layers x 637 options": lambda rng: independent(rng, 24, 637),
    "256 layers x 4000 options": lambda rng: independent(rng, 256, 4000),
    "chain 40 layers, 16 x 5 options": lambda rng: chain(rng, 40, 16, 5),
    "chain 120 layers, 16 x 5 options": lambda rng: chain(rng, 120, 16, 5),
}


def bench(name: str, share: float, gap: float, seed: int) -> Row:
    problem = CASES[name](np.random.default_rng(seed))
    full = {g.name: g.levels[int(g.distortion.argmin())] for g in problem.groups}
    dense_ms, fastest_ms = problem.evaluate(full)[1], fastest_plan(problem).time_ms
    started = time.perf_counter()
    solution = solve(problem, max(share * dense_ms, fastest_ms * 1.02), gap=gap, time_limit_s=60.0)
    seconds = time.perf_counter() - started
    return {
        "case": name,
        "budget": share,
        "options": sum(len(g.levels) for g in problem.groups),
        "kept": sum(len(g.levels) for g in drop_dominated(problem).groups),
        "pairs": len(problem.pairs),
        "seconds": round(seconds, 2),
        "gap_percent": round(100 * solution.gap, 4),
        "lagrangian_gap_percent": round(100 * solution.certified_gap, 4),
        "status": solution.status,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this case")
    parser.add_argument("--budget", action="append", type=float, help="share of the dense time")
    parser.add_argument("--gap", type=float, default=1e-3, help="gap at which to stop")
    parser.add_argument("--seed", type=int, default=0)
    add_json_option(parser)
    options = parser.parse_args()
    rows = []
    for name in options.case or CASES:
        for share in options.budget or (0.6, 0.3):
            print(f"{name}, budget {share}", file=sys.stderr)
            rows.append(bench(name, share, options.gap, options.seed))
    show_rows(rows, options.json)


if __name__ == "__main__":
    main()

"""How fast are the sparse products beside OpenVINO's dense ones?

Each product runs as a model of its own in OpenVINO, dense in float32, bfloat16 and int8 (by NNCF)
and sparse, in turn; and the kernel once more without OpenVINO, against the arithmetic that the
processor shows on registers. Weights are random. `us` and the ratios are of the time inside the
model's nodes: a model of one layer copies its input and output besides, which `call_us` contains
and a layer of a network does not pay.

    python tools/bench_kernels.py
    python tools/bench_kernels.py --shapes 128x384x1536 --blocks 4x1 --sparsities 0.8 0.9
    python tools/bench_kernels.py --shapes 1x768x3072 --cold --json kernels.json
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleave import Timed, medians_us, wall_us
from openvino_models import Floats, dense_model, nodes_us, opened, quantised, sparse_model
from rows import add_json_option, show_rows
from sparse_encoder import mask_blocks

from edgeprune.console import progress
from edgeprune.kernels import (
    BLOCKS,
    PackedWeight,
    SparseLinear,
    instruction_sets,
    multiply_layers,
    pack,
)
from edgeprune.kernels.library import library
from edgeprune.kernels.packing import PRECISIONS, block_name
from edgeprune.runtimes.openvino import OpenvinoSession

SHAPES = ("128x384x1536", "128x768x3072", "128x1536x384", "16x384x1536", "1x768x3072")
SPARSITIES = (0.0, 0.1, 0.5, 0.7, 0.8, 0.9, 0.95)
# Above the second cache of anything edgeprune knows, so that weights are not in it.
COLD_BYTES = 64 << 20
TRIES, WARM_UP = 5, 5


def peak_gops(precision: str) -> float:
    """Billions of multiplications and additions a second on registers, at best of five."""
    steps, best = 2_000_000, 0.0
    for _ in range(5):
        start = time.perf_counter()
        operations = library().edgeprune_peak(b"", PRECISIONS.index(precision), steps)
        best = max(best, operations / (time.perf_counter() - start))
    return best / 1e9


def random_weight(outputs: int, inputs: int, block: tuple[int, int], sparsity: float) -> Floats:
    """With exactly that share of each group of outputs' blocks zero."""
    torch.manual_seed(0)
    weight = torch.randn(outputs, inputs) / 20
    mask_blocks(weight, block, sparsity)
    return np.asarray(weight.numpy())


class Bench:
    """One shape: its dense models are made once."""

    def __init__(self, shape: str, threads: int, folder: Path) -> None:
        self.rows, self.inputs, self.outputs = map(int, shape.split("x"))
        self.threads, self.folder = threads, folder
        rng = np.random.default_rng(1)
        self.x = rng.standard_normal((self.rows, self.inputs)).astype(np.float32)
        self.bias = rng.standard_normal(self.outputs).astype(np.float32)
        weight = random_weight(self.outputs, self.inputs, (1, 1), 0.0)
        path = dense_model(self.rows, weight, self.bias, folder / f"{shape}.onnx")
        self.paths = {"f32": path, "bf16": path, "int8": quantised(path, [(self.x,)])}

    def dense(self) -> dict[str, OpenvinoSession]:
        """The dense models by precision, opened anew."""
        return {
            name: opened(path, self.x, self.threads, "default" if name == "int8" else name)
            for name, path in self.paths.items()
        }

    def sparse(self, packed: PackedWeight, static: bool) -> tuple[OpenvinoSession, Timed]:
        """The product inside OpenVINO, and the kernel by itself."""
        scale = float(np.abs(self.x).max() / 127) if static and packed.precision == "int8" else 0.0
        layer = SparseLinear(packed, self.bias, scale=scale)
        path = sparse_model(self.rows, layer, self.folder / "sparse.onnx")
        out = np.empty((self.rows, self.outputs), np.float32)
        kernel = wall_us(lambda: multiply_layers([layer], self.x, out=out))
        return opened(path, self.x, self.threads, "f32"), kernel


def measure(bench: Bench, packed: PackedWeight, options: argparse.Namespace) -> dict[str, float]:
    """Microseconds of dense and sparse, side by side: medians over some tries.

    The runtime tells only the mean over all runs of a model, so that each try opens them anew.
    """
    other = np.zeros(COLD_BYTES // 8)
    tries: dict[str, list[float]] = {}
    for _ in range(TRIES):
        operator, kernel = bench.sparse(packed, options.static)
        models = {**bench.dense(), "op": operator}
        for model in models.values():
            for _ in range(WARM_UP):
                model.infer_once()
            nodes_us(model)  # asking leaves the cold runs out of what follows
        calls = {name: wall_us(model.infer_once) for name, model in models.items()}
        calls["kernel"] = kernel
        wall = medians_us(calls, options.rounds, other.sum if options.cold else None)
        seen = {name: nodes_us(model) for name, model in models.items()}
        for name, us in {**seen, "kernel": wall["kernel"], "call": wall["op"]}.items():
            tries.setdefault(name, []).append(us)
    return {name: float(np.median(values)) for name, values in tries.items()}


def all_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a shape, precision, block and sparsity."""
    peaks = {precision: peak_gops(precision) for precision in PRECISIONS}
    with tempfile.TemporaryDirectory() as folder:
        for shape in options.shapes:
            bench = Bench(shape, options.threads, Path(folder))
            kinds = [
                (precision, block)
                for precision in options.precisions
                for block in BLOCKS[precision]
                if block_name(block) in options.blocks
            ]
            for (precision, block), sparsity in itertools.product(kinds, options.sparsities):
                weight = random_weight(bench.outputs, bench.inputs, block, sparsity)
                packed = pack(weight, block, precision)
                us = measure(bench, packed, options)
                operations = 2 * bench.rows * np.count_nonzero(weight)
                yield {
                    "m": bench.rows,
                    "k": bench.inputs,
                    "n": bench.outputs,
                    "block": block_name(block),
                    "sparsity": sparsity,
                    "precision": precision,
                    "isa": instruction_sets()[0],
                    "threads": options.threads,
                    "us": round(us["op"], 1),
                    "kernel_us": round(us["kernel"], 1),
                    "call_us": round(us["call"], 1),
                    "dense_us": round(us[precision], 1),
                    "peak_fraction": round(operations / us["kernel"] / 1e3 / peaks[precision], 3),
                    "ratio_same_precision": round(us[precision] / us["op"], 2),
                    "ratio_best_dense": round(min(us[p] for p in PRECISIONS) / us["op"], 2),
                }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="MxKxN")
    known = sorted({block_name(b) for blocks in BLOCKS.values() for b in blocks})
    parser.add_argument("--blocks", nargs="+", default=known, choices=known)
    parser.add_argument("--sparsities", nargs="+", type=float, default=SPARSITIES)
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10, help="of each of five tries")
    parser.add_argument("--static", action="store_true", help="int8: one scale for all rows")
    parser.add_argument("--cold", action="store_true", help="empty the caches before each call")
    add_json_option(parser)
    options = parser.parse_args()
    rows = []
    with progress("products") as bar:
        for row in all_rows(options):
            rows.append(row)
            bar.advance()
    show_rows(rows, options.json)


if __name__ == "__main__":
    main()

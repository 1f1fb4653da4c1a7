"""How fast are the sparse convolutions beside OpenVINO's dense ones?

Each convolution of one square image runs as a model of its own in OpenVINO, dense in float32,
bfloat16 and int8 (by NNCF) and sparse, in turn; and the kernel once more without OpenVINO, against
the arithmetic that the processor shows on registers. Weights are random. `us` and the ratios are of
the time inside the model's nodes, which for a dense model counts the reorders of its input and
output into the runtime's own layout; `bare_ratio` is to the dense convolution alone.

    python tools/bench_convolutions.py
    python tools/bench_convolutions.py --shapes 1x1:14x256:1024 --sparsities 0.9
"""

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bench_kernels import peak_gops, random_weight
from interleave import medians_us, wall_us
from openvino_models import (
    Floats,
    dense_convolution,
    opened,
    quantised,
    sparse_convolution,
)
from rows import add_json_option, show_rows

from edgeprune.console import progress
from edgeprune.kernels import SparseConvolution, convolve, instruction_sets, pack
from edgeprune.kernels.packing import PRECISIONS
from edgeprune.runtimes.openvino import OpenvinoSession

# Kernel:image x channels:outputs.
SHAPES = ("1x1:56x64:256", "1x1:14x256:1024", "3x3:32x16:16", "3x3:14x256:256")
SPARSITIES = (0.7, 0.8, 0.9)
BLOCK = (4, 1)
TRIES, WARM_UP = 5, 5


class Bench:
    """One shape: its dense models are made once."""

    def __init__(self, shape: str, threads: int, folder: Path) -> None:
        kernel, image, outputs = shape.split(":")
        self.kernel = int(kernel.split("x")[0])
        self.size, self.channels = map(int, image.split("x"))
        self.outputs, self.threads, self.folder = int(outputs), threads, folder
        rng = np.random.default_rng(1)
        images = (1, self.channels, self.size, self.size)
        self.x: Floats = rng.standard_normal(images).astype(np.float32)
        self.bias = rng.standard_normal(self.outputs).astype(np.float32)
        layer, weight = self.layer("f32", 0.0)
        path = dense_convolution(layer, weight, self.size, folder / "dense.onnx")
        self.paths = {"f32": path, "bf16": path, "int8": quantised(path, [(self.x,)])}

    def layer(self, precision: Any, sparsity: float) -> tuple[SparseConvolution, Floats]:
        """The convolution, and its weight of shape (outputs, inputs)."""
        inputs = self.channels * self.kernel**2
        weight = random_weight(self.outputs, inputs, BLOCK, sparsity)
        scale = float(np.abs(self.x).max() / 127) if precision == "int8" else 0.0
        pair, padding = (self.kernel, self.kernel), (self.kernel // 2, self.kernel // 2)
        packed = pack(weight, BLOCK, precision)
        return SparseConvolution(packed, self.bias, pair, padding=padding, scale=scale), weight

    def models(self, layer: SparseConvolution) -> dict[str, OpenvinoSession]:
        """Dense by precision, and the operator, opened anew."""
        dense = {
            name: opened(path, self.x, self.threads, "default" if name == "int8" else name)
            for name, path in self.paths.items()
        }
        path = sparse_convolution(layer, self.size, self.folder / "sparse.onnx")
        return {**dense, "op": opened(path, self.x, self.threads, "f32")}


def measure(bench: Bench, layer: SparseConvolution, rounds: int) -> dict[str, float]:
    """Microseconds of dense and sparse, side by side: medians over some tries."""
    out = convolve(layer, bench.x)
    tries: dict[str, list[float]] = {}
    for _ in range(TRIES):
        models = bench.models(layer)
        for model in models.values():
            for _ in range(WARM_UP):
                model.infer_once()
            model.layer_times()  # asking leaves the cold runs out of what follows
        calls = {name: wall_us(model.infer_once) for name, model in models.items()}
        calls["kernel"] = wall_us(lambda: convolve(layer, bench.x, out=out))
        tries.setdefault("kernel", []).append(medians_us(calls, rounds)["kernel"])
        for name, model in models.items():
            nodes = model.layer_times()
            tries.setdefault(name, []).append(sum(node.us for node in nodes))
            bare = sum(node.us for node in nodes if "Reorder" not in node.layer_type)
            tries.setdefault(f"{name} bare", []).append(bare)
    return {name: float(np.median(values)) for name, values in tries.items()}


def all_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a shape, precision and sparsity."""
    peaks = {precision: peak_gops(precision) for precision in PRECISIONS}
    with tempfile.TemporaryDirectory() as folder:
        for shape in options.shapes:
            bench = Bench(shape, options.threads, Path(folder))
            for precision, sparsity in itertools.product(options.precisions, options.sparsities):
                layer, weight = bench.layer(precision, sparsity)
                us = measure(bench, layer, options.rounds)
                operations = 2 * bench.size**2 * np.count_nonzero(weight)
                yield {
                    "shape": shape,
                    "precision": precision,
                    "sparsity": sparsity,
                    "isa": instruction_sets()[0],
                    "threads": options.threads,
                    "us": round(us["op"], 1),
                    "kernel_us": round(us["kernel"], 1),
                    "dense_us": round(us[precision], 1),
                    "peak_fraction": round(operations / us["kernel"] / 1e3 / peaks[precision], 3),
                    "ratio_same_precision": round(us[precision] / us["op"], 2),
                    "bare_ratio": round(us[f"{precision} bare"] / us["op bare"], 2),
                    "ratio_best_dense": round(min(us[p] for p in PRECISIONS) / us["op"], 2),
                }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="KERNEL:SIZExCHANNELS:OUTPUTS")
    parser.add_argument("--sparsities", nargs="+", type=float, default=SPARSITIES)
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="of each of five tries")
    add_json_option(parser)
    options = parser.parse_args()
    rows = []
    with progress("convolutions") as bar:
        for row in all_rows(options):
            rows.append(row)
            bar.advance()
    show_rows(rows, options.json)


if __name__ == "__main__":
    main()

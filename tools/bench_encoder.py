"""How fast is a whole encoder with sparse layers beside the dense one, and beside its peers?

A MiniLM-like encoder (6 layers, width 384) and one of width 768, sequence 128, batch 1, with random
weights and masks. Attention, normalisation and residuals run in OpenVINO in all rows of ours. Rows
of DeepSparse appear when it is installed in the environment whose Python is named.

    python tools/bench_encoder.py --json encoder.json
    python tools/bench_encoder.py --sizes minilm --sparsities 0.9 --deepsparse ~/ds/bin/python
"""

import argparse
import itertools
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from interleave import medians_us, wall_us
from openvino_models import opened, quantised
from quantised_onnx import write_quantised
from rows import add_json_option, show_rows
from sparse_encoder import (
    SIZES,
    dense_onnx,
    encoder,
    example,
    sparse_onnx,
    with_torch_sparse,
)

from edgeprune.console import progress
from edgeprune.kernels.packing import block_name

Key = tuple[str, str, str, float]  # engine, precision, block, sparsity
# float32 keeps its attention in float32; elsewhere it runs at the runtime's default precision.
KINDS: tuple[tuple[Any, tuple[int, int]], ...] = (
    ("f32", (4, 1)),
    ("bf16", (4, 1)),
    ("bf16", (16, 1)),
    ("int8", (4, 1)),
    ("int8", (16, 4)),
)
_DEEPSPARSE = """
import sys, time, numpy as np
from deepsparse import Engine
engine = Engine(sys.argv[1], batch_size=1, num_cores=1)
x = [np.random.randn(*map(int, sys.argv[2].split("x"))).astype("f")]
times = []
for _ in range(300):
    start = time.perf_counter()
    engine.run(x)
    times.append(time.perf_counter() - start)
print("median", 1e3 * float(np.median(times[100:])))
"""


def deepsparse_ms(python: Path, path: Path, x: torch.Tensor) -> float | None:
    """Median of its engine on one core, in a process of its own; None when it cannot run it."""
    command = [str(python), "-c", _DEEPSPARSE, str(path), "x".join(map(str, x.shape))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((text for text in done.stdout.splitlines() if text.startswith("median")), None)
    if line is None:
        print((done.stderr.strip().splitlines() or ["DeepSparse failed"])[-1])
    return float(line.split()[1]) if line else None


def row(size: str, key: Key, ms: float) -> dict[str, Any]:
    """One line of the table."""
    named = dict(zip(("engine", "precision", "block", "sparsity"), key, strict=True))
    return {"encoder": size, **named, "ms": round(ms, 3)}


def all_rows(options: argparse.Namespace, size: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Dense and every sparse kind side by side in one round-robin; peers after them."""
    x = example(size)
    array = x.numpy()
    dense = encoder(size, (1, 1), 0.0)
    path = folder / "dense.onnx"
    dense_onnx(dense, x, path)
    int8 = quantised(path, [(array,)])
    calls: dict[Key, Callable[[], object]] = {
        ("openvino", "f32", "-", 0.0): opened(path, array, 1, "f32").infer_once,
        ("openvino", "default", "-", 0.0): opened(path, array, 1).infer_once,
        ("openvino", "int8", "-", 0.0): opened(int8, array, 1).infer_once,
    }
    for sparsity, (precision, block) in itertools.product(options.sparsities, KINDS):
        name = block_name(block)
        network = encoder(size, block, sparsity)
        masked = folder / f"masked-{name}-{sparsity}.onnx"
        module = dense_onnx(network, x, masked)
        made = sparse_onnx(masked, module, (precision, block), folder / "sparse.onnx")
        hint = "f32" if precision == "f32" else "default"
        calls["edgeprune", precision, name, sparsity] = opened(made, array, 1, hint).infer_once
    if options.torch:
        calls.update(torch_calls(options, size, x))
    named = {"/".join(map(str, key)): wall_us(call) for key, call in calls.items()}
    with torch.no_grad():
        us = medians_us(named, options.rounds)
    for key in calls:
        yield row(size, key, us["/".join(map(str, key))] / 1e3)
    if options.deepsparse:
        yield from deepsparse_rows(options, size, x, folder)


def torch_calls(
    options: argparse.Namespace, size: str, x: torch.Tensor
) -> dict[Key, Callable[[], object]]:
    """The encoder in torch, with its own sparse tensors."""
    calls: dict[Key, Callable[[], object]] = {}
    for sparsity in options.sparsities:
        csr = with_torch_sparse(encoder(size, (1, 1), sparsity), "csr", (1, 1))
        bsr = with_torch_sparse(encoder(size, (4, 4), sparsity), "bsr", (4, 4))
        calls["torch csr", "f32", "1x1", sparsity] = lambda network=csr: network(x)
        calls["torch bsr", "f32", "4x4", sparsity] = lambda network=bsr: network(x)
    return calls


def deepsparse_rows(
    options: argparse.Namespace, size: str, x: torch.Tensor, folder: Path
) -> Iterator[dict[str, Any]]:
    """The same masks in DeepSparse: 4x1 in float32, 1x4 in int8, as its kernels like them."""
    for sparsity in options.sparsities:
        for precision, block in (("f32", (4, 1)), ("int8", (1, 4))):
            path = folder / "peer.onnx"
            dense_onnx(encoder(size, block, sparsity), x, path)
            if precision == "int8":
                path = write_quantised(path, x.numpy(), folder / "peer-int8.onnx")
            ms = deepsparse_ms(options.deepsparse, path, x)
            if ms is not None:
                name = block_name(block)
                yield row(size, ("deepsparse", precision, name, sparsity), ms)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.8, 0.9])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--torch", action="store_true", help="also torch's CSR and BSR tensors")
    parser.add_argument("--deepsparse", type=Path, metavar="PYTHON", help="where it is installed")
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder, progress(f"encoder {size}") as bar:
            for made in all_rows(options, size, Path(folder)):
                rows.append(made)
                bar.advance()
    show_rows(rows, options.json)


if __name__ == "__main__":
    main()

"""Common layers over common shapes, measured one by one: a table before there is any model.

A layer alone does not feel its neighbours (fusion, caches), so these figures say what shapes a
device likes; plans are made from networks profiled in place.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.devices import Device
from edgeprune.latency.measure import save_inputs
from edgeprune.latency.statistics import latency_stats
from edgeprune.latency.stopwatch import open_stopwatch
from edgeprune.latency.table import Table
from edgeprune.runtimes import runtime
from edgeprune.target import Target

_ROUNDS = 6
_SERIES_MS = 10.0
# Layers opened at the same time in one process.
_TOGETHER = 24
_OPSET = 17
# Records in the table: one for each layer and round.
_KIND = "alone"


@dataclass(frozen=True)
class Layer:
    """One layer of the sweep.

    Attributes:
        kind: ``matmul``, ``convolution`` or ``depthwise``.
        rows: Rows of the product, or the side of the square feature map.
        inputs: Input features or channels.
        outputs: Output features or channels.
        kernel: Side of the kernel; 1 for products.
    """

    kind: str
    rows: int
    inputs: int
    outputs: int
    kernel: int = 1

    @property
    def signature(self) -> str:
        """Name in the table: the operator with its shapes."""
        return f"{self.kind}:{self.rows}x{self.inputs}->{self.outputs}:k{self.kernel}"

    @property
    def macs(self) -> int:
        """Multiplications of one inference."""
        if self.kind == "matmul":
            return self.rows * self.inputs * self.outputs
        positions = self.rows**2 * self.kernel**2
        return positions * self.outputs * (1 if self.kind == "depthwise" else self.inputs)

    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input tensor."""
        if self.kind == "matmul":
            return (1, self.rows, self.inputs)
        return (1, self.inputs, self.rows, self.rows)

    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output tensor."""
        if self.kind == "matmul":
            return (1, self.rows, self.outputs)
        return (1, self.outputs, self.rows, self.rows)


def sweep_layers() -> tuple[Layer, ...]:
    """The layers measured without a task."""
    widths = (32, 64, 96, 128, 256, 384, 512, 768, 1024, 1536)
    matmuls = [
        Layer("matmul", rows, i, o)
        for rows, i, o in product((1, 128), widths, widths)
        if i * o <= 768 * 1536 and (i in (128, 384, 768) or o in (128, 384, 768))
    ]
    channels = (8, 16, 24, 32, 48, 64, 96, 128)
    convolutions = [
        Layer("convolution", side, i, o, kernel)
        for side, kernel, i, o in product((8, 32), (1, 3), channels, channels)
        if i in (16, 32, 64) or o == i
    ]
    depthwise = [Layer("depthwise", side, c, c, 3) for side, c in product((8, 32), channels)]
    return (*matmuls, *convolutions, *depthwise)


def measure_sweep(
    target: Target,
    device: Device,
    table: Table,
    layers: tuple[Layer, ...] | None = None,
    progress: Callable[[float, float, str], None] | None = None,
) -> list[dict[str, Any]]:
    """Measure what the table lacks of the sweep; gives a row for every layer.

    Args:
        target: Runtime, threads and precision.
        device: Where to measure.
        table: Where the records go and come from.
        layers: What to measure; the common shapes by default.
        progress: Called with what is done, the total, and a note.
    """
    wanted = sweep_layers() if layers is None else layers
    missing = [layer for layer in wanted if len(table.all(_KIND, layer.signature)) < _ROUNDS]
    for start in range(0, len(missing), _TOGETHER):
        if progress is not None:
            progress(start, len(missing), missing[start].kind)
        group = missing[start : start + _TOGETHER]
        for shape in dict.fromkeys(layer.input_shape() for layer in group):
            _measure(target, device, table, [x for x in group if x.input_shape() == shape])
    return [_row(layer, table) for layer in wanted]


def _measure(target: Target, device: Device, table: Table, alike: list[Layer]) -> None:
    """Bring layers with equal inputs to their number of rounds, in one process."""
    backend = runtime(target.runtime)
    order = np.random.default_rng(0)
    names = [layer.signature for layer in alike]
    values = np.random.default_rng(0).standard_normal(alike[0].input_shape()).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        inputs = save_inputs([values], Path(folder) / "inputs.npz")
        with open_stopwatch(device, target, inputs, series_ms=_SERIES_MS) as watch:
            for number, layer in enumerate(alike):
                path = Path(folder) / f"{number}.onnx"
                path.write_bytes(layer_onnx(layer))
                watch.load(layer.signature, backend.convert(path, path.with_suffix(backend.suffix)))
                watch.calibrate(layer.signature)
            while lacking := [n for n in names if len(table.all(_KIND, n)) < _ROUNDS]:
                round_ = watch.round(lacking, order)
                for name in lacking:
                    table.append(_KIND, name, round_.record(name))


def layer_onnx(layer: Layer) -> bytes:
    """The layer as an ONNX model with random weights and a bias."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)

    def constant(name: str, shape: tuple[int, ...]) -> Any:
        values = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) + 1)
        return numpy_helper.from_array(values.astype(np.float32), name)

    if layer.kind == "matmul":
        weights = [constant("weight", (layer.inputs, layer.outputs))]
        nodes = [
            helper.make_node("MatMul", ["x", "weight"], ["product"], name="/layer/MatMul"),
            helper.make_node("Add", ["product", "bias"], ["y"], name="/layer/Add"),
        ]
    else:
        groups = layer.inputs if layer.kind == "depthwise" else 1
        shape = (layer.outputs, layer.inputs // groups, layer.kernel, layer.kernel)
        weights = [constant("weight", shape)]
        convolution = helper.make_node(
            "Conv",
            ["x", "weight", "bias"],
            ["y"],
            name="/layer/Conv",
            group=groups,
            kernel_shape=[layer.kernel, layer.kernel],
            pads=[layer.kernel // 2] * 4,
        )
        nodes = [convolution]
    weights.append(constant("bias", (layer.outputs,)))
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, layer.input_shape())],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, layer.output_shape())],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    return bytes(model.SerializeToString())


def _row(layer: Layer, table: Table) -> dict[str, Any]:
    stats = latency_stats([r["samples_ms"] for r in table.all(_KIND, layer.signature)])
    return {
        "layer": layer.kind,
        "rows": layer.rows,
        "inputs": layer.inputs,
        "outputs": layer.outputs,
        "kernel": layer.kernel,
        "median_us": 1e3 * stats.median,
        "low_us": 1e3 * stats.low,
        "gmac_per_s": layer.macs / stats.low / 1e6,
    }

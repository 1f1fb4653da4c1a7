"""Dense and sparse products as models of OpenVINO, for benchmarks."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from onnx import ModelProto, TensorProto, helper, numpy_helper, save

from edgeprune import openvino_extension
from edgeprune.kernels import SparseLinear
from edgeprune.kernels.onnx_node import DOMAIN, DOMAIN_VERSION, sparse_node
from edgeprune.runtimes.openvino import OpenvinoRuntime

WARM_UP = 5

Floats = npt.NDArray[np.float32]


def product_model(
    rows: int, nodes: list[Any], constants: list[Any], size: tuple[int, int]
) -> ModelProto:
    """An ONNX model that makes ``y`` of ``x``; ``size`` is outputs and inputs."""
    outputs, inputs = size
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, outputs])],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def dense_model(rows: int, weight: Floats, bias: Floats, path: Path) -> Path:
    """``x W^T + bias`` as ONNX knows it."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"]),
        helper.make_node("Add", ["xw", "b"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(weight.T), "w"),
        numpy_helper.from_array(bias, "b"),
    ]
    save(product_model(rows, nodes, constants, (weight.shape[0], weight.shape[1])), path)
    return path


def sparse_model(rows: int, layer: SparseLinear, path: Path) -> Path:
    """The same by edgeprune's operator."""
    node, constants = sparse_node([layer], "product", "x", "y")
    size = (layer.weight.outputs, layer.weight.inputs)
    save(product_model(rows, [node], constants, size), path)
    return path


def quantised(path: Path, batches: list[tuple[Floats, ...]]) -> Path:
    """The same in int8, by NNCF."""
    return OpenvinoRuntime().quantise_int8(path, path.with_suffix(".int8.xml"), batches)


class Opened:
    """A compiled model with its input in place; calling it runs it once."""

    def __init__(self, path: Path, x: Floats, threads: int, precision: str | None) -> None:
        core = ov.Core()
        core.add_extension(str(openvino_extension()))
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "PERF_COUNT": True,
        }
        if precision:
            settings["INFERENCE_PRECISION_HINT"] = precision
        self._request = core.compile_model(path, "CPU", settings).create_infer_request()
        self._request.set_input_tensor(0, ov.Tensor(x, shared_memory=True))

        self._runs = 0
        self._counted = (0, 0.0)

    def __call__(self) -> None:
        self._request.infer()
        self._runs += 1

    def warm_up(self) -> None:
        """Run some times, and leave those out of :meth:`nodes_us`."""
        for _ in range(WARM_UP):
            self()
        self._counted = (self._runs, self._mean_us())

    def nodes_us(self) -> float:
        """Mean time inside the model's nodes since it was warmed up."""
        runs, mean_us = self._counted
        return (self._mean_us() * self._runs - mean_us * runs) / (self._runs - runs)

    def _mean_us(self) -> float:
        """Over all runs, as the runtime counts it: in whole microseconds a node."""
        entries = self._request.get_profiling_info()
        return sum(1e6 * entry.real_time.total_seconds() for entry in entries)

"""Dense and sparse products as models of OpenVINO, for benchmarks."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, numpy_helper, save

from edgeprune.kernels import SparseConvolution, SparseLinear
from edgeprune.kernels.onnx_node import DOMAIN, DOMAIN_VERSION, convolution_node, sparse_node
from edgeprune.runtimes.base import CompileOptions
from edgeprune.runtimes.openvino import OpenvinoRuntime, OpenvinoSession

Floats = npt.NDArray[np.float32]


def product_model(nodes: list[Any], constants: list[Any], x: list[int], y: list[int]) -> ModelProto:
    """An ONNX model that makes ``y`` of ``x``, given their shapes."""
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
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
    outputs, inputs = weight.shape
    save(product_model(nodes, constants, [rows, inputs], [rows, outputs]), path)
    return path


def sparse_model(rows: int, layer: SparseLinear, path: Path) -> Path:
    """The same by edgeprune's operator."""
    node, constants = sparse_node([layer], "product", "x", "y")
    x, y = [rows, layer.weight.inputs], [rows, layer.weight.outputs]
    save(product_model([node], constants, x, y), path)
    return path


def dense_convolution(layer: SparseConvolution, weight: Floats, size: int, path: Path) -> Path:
    """The convolution of a square image as ONNX knows it; weight of shape (outputs, inputs)."""
    shaped = np.ascontiguousarray(weight.reshape(len(weight), layer.channels, *layer.kernel))
    node = helper.make_node(
        "Conv",
        ["x", "w", "b"],
        ["y"],
        kernel_shape=layer.kernel,
        strides=layer.stride,
        pads=[*layer.padding, *layer.padding],
        dilations=layer.dilation,
    )
    constants = [numpy_helper.from_array(shaped, "w"), numpy_helper.from_array(layer.bias, "b")]
    save(product_model([node], constants, *_image_shapes(layer, size)), path)
    return path


def sparse_convolution(layer: SparseConvolution, size: int, path: Path) -> Path:
    """The same by edgeprune's operator."""
    node, constants = convolution_node(layer, "convolution", "x", "y")
    save(product_model([node], constants, *_image_shapes(layer, size)), path)
    return path


def _image_shapes(layer: SparseConvolution, size: int) -> tuple[list[int], list[int]]:
    made = layer.output_size((size, size))
    return [1, layer.channels, size, size], [1, layer.weight.outputs, *made]


def quantised(path: Path, batches: list[tuple[Floats, ...]]) -> Path:
    """The same in int8, by NNCF."""
    return OpenvinoRuntime().quantise_int8(path, path.with_suffix(".int8.xml"), batches)


def opened(path: Path, x: Floats, threads: int, precision: str = "default") -> OpenvinoSession:
    """A model with its input in place, that counts the time of its nodes."""
    options = CompileOptions(threads=threads, precision=precision, profile=True)
    session = OpenvinoRuntime().load(path, options)
    session.set_inputs((x,))
    return session


def nodes_us(session: OpenvinoSession) -> float:
    """Time inside the nodes, as the runtime counts it: the mean over the runs since last asked."""
    return sum(layer.us for layer in session.layer_times())

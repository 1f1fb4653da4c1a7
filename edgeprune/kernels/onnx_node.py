"""Layers with packed weights as nodes of an ONNX graph, in the domain of our OpenVINO operators."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.kernels.convolution import SparseConvolution
from edgeprune.kernels.layers import SparseLinear
from edgeprune.kernels.packing import block_name

if TYPE_CHECKING:
    import onnx

OPERATOR, CONVOLUTION = "SparseLinear", "SparseConvolution"
DOMAIN = "edgeprune"
DOMAIN_VERSION = 1


def sparse_node(
    layers: Sequence[SparseLinear], name: str, x: str, y: str
) -> "tuple[onnx.NodeProto, list[onnx.TensorProto]]":
    """The node that computes ``y`` from ``x`` (float32, last dimension = inputs).

    Args:
        layers: One, or several of which each takes what the one before makes.
        name: Of the node; its constants are named after it.
        x: Name of the tensor it reads.
        y: Name of the tensor it makes.

    Returns:
        The node, and the initializers it needs.
    """
    from onnx import helper

    weights = [f"{name}.{i}.weight" for i in range(len(layers))]
    biases = [f"{name}.{i}.bias" for i in range(len(layers))]
    # A weight says itself what it is; the last three tell readers of the file.
    attributes: dict[str, Any] = {
        "features": layers[-1].weight.outputs,
        "activation": [layer.activation for layer in layers],
        "scale": [f"{layer.scale:.9g}" for layer in layers],
        "zero_point": [layer.zero_point for layer in layers],
        "block": [block_name(layer.weight.block) for layer in layers],
        "precision": [layer.weight.precision for layer in layers],
        "sparsity": [f"{layer.weight.sparsity:.4f}" for layer in layers],
    }
    inputs = [x, *itertools.chain.from_iterable(zip(weights, biases, strict=True))]
    node = helper.make_node(OPERATOR, inputs, [y], name=name, domain=DOMAIN, **attributes)
    constants = []
    for layer, weight, bias in zip(layers, weights, biases, strict=True):
        constants += _constants(layer, weight, bias)
    return node, constants


def convolution_node(
    layer: SparseConvolution, name: str, x: str, y: str
) -> "tuple[onnx.NodeProto, list[onnx.TensorProto]]":
    """The node that computes ``y`` from ``x`` (float32; image, channel, row, column).

    Args:
        layer: What it computes.
        name: Of the node; its constants are named after it.
        x: Name of the tensor it reads.
        y: Name of the tensor it makes.

    Returns:
        The node, and the initializers it needs.
    """
    from onnx import helper

    weight, bias = f"{name}.weight", f"{name}.bias"
    attributes: dict[str, Any] = {
        "kernel": layer.kernel,
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "activation": layer.activation,
        "scale": f"{layer.scale:.9g}",
        "zero_point": layer.zero_point,
        "block": block_name(layer.weight.block),
        "precision": layer.weight.precision,
        "sparsity": f"{layer.weight.sparsity:.4f}",
    }
    node = helper.make_node(
        CONVOLUTION, [x, weight, bias], [y], name=name, domain=DOMAIN, **attributes
    )
    return node, _constants(layer, weight, bias)


def _constants(
    layer: SparseLinear | SparseConvolution, weight: str, bias: str
) -> "list[onnx.TensorProto]":
    from onnx import numpy_helper

    return [
        numpy_helper.from_array(layer.weight.data, weight),
        numpy_helper.from_array(np.asarray(layer.bias, np.float32), bias),
    ]

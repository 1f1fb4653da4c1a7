"""Layers with packed weights as a node of an ONNX graph, in the domain of our OpenVINO operator."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.kernels.layers import SparseLinear
from edgeprune.kernels.packing import block_name

if TYPE_CHECKING:
    import onnx

OPERATOR = "SparseLinear"
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
    from onnx import helper, numpy_helper

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
        constants.append(numpy_helper.from_array(layer.weight.data, weight))
        constants.append(numpy_helper.from_array(np.asarray(layer.bias, np.float32), bias))
    return node, constants

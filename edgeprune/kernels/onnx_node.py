"""A packed weight as a node of an ONNX graph, in the domain of edgeprune's OpenVINO operator."""

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.kernels.layers import SparseLinear

if TYPE_CHECKING:
    import onnx

DOMAIN = "edgeprune"
DOMAIN_VERSION = 1


def sparse_linear_node(
    layer: SparseLinear, name: str, x: str, y: str
) -> "tuple[onnx.NodeProto, list[onnx.TensorProto]]":
    """The node that computes ``y`` from ``x`` (float32, last dimension = inputs).

    Args:
        layer: What it runs with.
        name: Of the node; its constants are named after it.
        x: Name of the tensor it reads.
        y: Name of the tensor it makes.

    Returns:
        The node, and the initializers it needs.
    """
    from onnx import helper, numpy_helper

    weight, bias = f"{name}.weight", f"{name}.bias"
    # A weight says itself what it is; the attributes below it tell readers of the file.
    attributes: dict[str, Any] = {
        "features": layer.weight.outputs,
        "activation": layer.activation,
        "scale": layer.scale,
        "zero_point": layer.zero_point,
        "block": "x".join(map(str, layer.weight.block)),
        "precision": layer.weight.precision,
        "sparsity": round(layer.weight.sparsity, 4),
    }
    node = helper.make_node(
        "SparseLinear", [x, weight, bias], [y], name=name, domain=DOMAIN, **attributes
    )
    return node, [
        numpy_helper.from_array(layer.weight.data, weight),
        numpy_helper.from_array(np.asarray(layer.bias, np.float32), bias),
    ]

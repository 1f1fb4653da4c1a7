"""Layers that an ONNX file spells in several nodes, found and put together.

The pruner knows a layer by its operator: a product with a stored matrix and the sum with a stored
vector behind it are one linear layer, and a convolution takes the vector as its bias.
"""

from collections.abc import Callable

import numpy as np
import torch

from edgeprune.onnx_import.graph import Constant, OnnxGraph, OnnxNode, branches, remove_dead_nodes
from edgeprune.onnx_import.host import Host
from edgeprune.onnx_import.operators.recurrent import RECURRENT, separate_weights
from edgeprune.onnx_import.registry import OWN


def recognise_layers(graph: OnnxGraph) -> None:
    """Rewrite the graph and its branches in place."""
    for node in graph.nodes:
        for branch in branches(node):
            recognise_layers(branch)
    for node in graph.nodes:
        rule = _RULES.get(node.op_type) if node.domain == "" else None
        if rule is not None:
            rule(graph, node)
    for node in graph.nodes:
        if (node.domain, node.op_type) == (OWN, "Linear") or node.op_type == "Conv":
            _take_bias(graph, node)
    remove_dead_nodes(graph)


def _matmul(graph: OnnxGraph, node: OnnxNode) -> None:
    """``x W`` with a stored matrix."""
    left, right = node.inputs
    matrix = graph.constants.get(right)
    if matrix is None or matrix.array.ndim != 2 or left in graph.constants or not matrix.floating:
        return
    _become_linear(node, [left, _transposed(graph, right)])


def _gemm(graph: OnnxGraph, node: OnnxNode) -> None:
    """``x W + b`` or ``x W^T + b``."""
    left, right = node.inputs[:2]
    matrix, given = graph.constants.get(right), node.attributes
    plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)
    if matrix is None or not matrix.floating or left in graph.constants or not plain:
        return
    if not given.get("transB", 0):
        right = _transposed(graph, right)
    inputs = [left, right]
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = _vector(graph, node.inputs[2], len(graph.constants[right].array))
        if bias is None:
            return
        inputs.append(bias)
    _become_linear(node, inputs)


def _become_linear(node: OnnxNode, inputs: list[str]) -> None:
    node.op_type, node.domain, node.inputs, node.attributes = "Linear", OWN, inputs, {}


def _transposed(graph: OnnxGraph, name: str) -> str:
    """The key of a stored matrix's transpose, which may be what the file itself stores."""
    matrix = graph.constants[name]
    if matrix.transpose_of in graph.constants:
        return matrix.transpose_of
    key = f"{matrix.name}:transposed"
    if key not in graph.constants:
        array = np.ascontiguousarray(matrix.array.T)
        graph.constants[key] = Constant(matrix.name, Host(array, torch.float32), matrix.learned)
    return key


def _vector(graph: OnnxGraph, name: str, size: int) -> str | None:
    """The key of a stored value of that many numbers along its last dimension, as a vector."""
    constant = graph.constants.get(name)
    if constant is None or not constant.floating:
        return None
    array = constant.array
    if array.size != size or (array.ndim and array.shape[-1] != size):
        return None
    return name if array.ndim == 1 else _as_vector(graph, constant)


def _as_vector(graph: OnnxGraph, constant: Constant) -> str:
    """The key of the same numbers in one dimension."""
    key = f"{constant.name}:vector"
    value = Host(constant.array.reshape(-1), torch.float32)
    graph.constants[key] = Constant(constant.name, value, constant.learned)
    return key


def _take_bias(graph: OnnxGraph, node: OnnxNode) -> None:
    """Take the stored vector that is added to the result of a layer, and to nothing else, in."""
    if len(node.inputs) > 2 and node.inputs[2]:
        return
    readers = graph.readers()[node.outputs[0]]
    weight = graph.constants.get(node.inputs[1])
    if weight is None or len(readers) != 1 or node.outputs[0] in graph.outputs:
        return
    (add,) = readers
    if add.op_type != "Add" or add.domain != "":
        return
    other = next((name for name in add.inputs if name != node.outputs[0]), "")
    bias = _bias(graph, node, other, len(weight.array))
    if bias is not None:
        node.inputs = [*node.inputs[:2], bias]
        node.outputs, add.outputs = add.outputs, ["" for _ in add.outputs]


def _bias(graph: OnnxGraph, node: OnnxNode, name: str, size: int) -> str | None:
    constant = graph.constants.get(name)
    if constant is None or not constant.floating:
        return None
    array = constant.array
    if node.op_type == "Linear":
        return name if array.shape == (size,) else None
    space = graph.constants[node.inputs[1]].array.ndim - 2
    if array.shape not in ((size, *[1] * space), (1, size, *[1] * space)):
        return None
    return _as_vector(graph, constant)


def _recurrent(graph: OnnxGraph, node: OnnxNode) -> None:
    """Weights in the order of torch's gates, a tensor for each direction and role."""
    stored = [graph.constants.get(name) if name else None for name in node.inputs[1:4]]
    if any(x is None and name for x, name in zip(stored, node.inputs[1:4])) or stored[0] is None:
        return
    arrays = [None if constant is None else constant.value.as_tensor() for constant in stored]
    made = separate_weights(node, arrays)
    names = []
    for role, tensor in made.items():
        name = f"{node.name}/{role}"
        host = Host(tensor.contiguous().numpy(), tensor.dtype)
        graph.constants[name] = Constant(name, host, learned=True)
        names.append(name)
    states = [node.inputs[i] if len(node.inputs) > i else "" for i in (4, 5, 6, 7)]
    node.domain, node.inputs = OWN, [node.inputs[0], *states, *names]


_RULES: dict[str, Callable[[OnnxGraph, OnnxNode], None]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    **dict.fromkeys(RECURRENT, _recurrent),
}

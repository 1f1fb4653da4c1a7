"""Puts packed weights into an ONNX file, in place of the nodes that computed the dense layers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprune.errors import InputError
from edgeprune.kernels.convolution import SparseConvolution
from edgeprune.kernels.layers import SparseLinear
from edgeprune.kernels.onnx_node import (
    CONVOLUTION,
    DOMAIN,
    DOMAIN_VERSION,
    OPERATOR,
    convolution_node,
    sparse_node,
)

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Replacement:
    """Consecutive layers of the graph, with their activations, as one sparse node.

    Attributes:
        scopes: Graph nodes that it replaces, first the first layer.
        layers: What takes their place: linear layers, or one convolution.
        folded: Further nodes behind the first, which the exporter may have folded into it.
    """

    scopes: tuple[str, ...]
    layers: tuple[SparseLinear, ...] | SparseConvolution
    folded: tuple[str, ...] = ()


def put_sparse_layers(model: "onnx.ModelProto", replacements: Iterable[Replacement]) -> None:
    """Replace layers of a model, whose ONNX nodes are named ``/<graph node>/<Op>``, in place.

    Raises:
        InputError: Nodes of a scope are missing, or read or make more than one tensor.
    """
    from onnx import helper

    for replacement in replacements:
        _replace(model.graph, replacement)
    _drop_unused(model.graph)
    if all(opset.domain != DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, DOMAIN_VERSION))


def _replace(graph: "onnx.GraphProto", replacement: Replacement) -> None:
    name = replacement.scopes[0]
    scopes = {*replacement.scopes, *replacement.folded}
    inside = [node for node in graph.node if _scope(node) in scopes]
    if not {_scope(node) for node in inside}.issuperset(replacement.scopes):
        raise InputError(f"the ONNX graph has no nodes of layer {name}: export it again")
    constants = _constants(graph)
    made = {output for node in inside for output in node.output}
    read = {x for node in inside for x in node.input if x} - made - constants.keys()
    outside = [node for node in graph.node if _scope(node) not in scopes]
    used = {x for node in outside for x in node.input} | {x.name for x in graph.output}
    if len(read) != 1 or len(made & used) != 1:
        raise InputError(
            f"layer {name} reads {len(read)} tensors and makes {len(made & used)} in the ONNX "
            "graph; a sparse layer reads one and makes one"
        )
    node, weights = _node(replacement.layers, name, read.pop(), (made & used).pop())
    place = next(i for i, found in enumerate(graph.node) if found.name == inside[-1].name)
    graph.node.insert(place, node)
    graph.initializer.extend(weights)
    for dead in inside:
        graph.node.remove(dead)


def _node(
    layers: tuple[SparseLinear, ...] | SparseConvolution, scope: str, x: str, y: str
) -> "tuple[onnx.NodeProto, list[onnx.TensorProto]]":
    if isinstance(layers, SparseConvolution):
        return convolution_node(layers, f"/{scope}/{CONVOLUTION}", x, y)
    return sparse_node(layers, f"/{scope}/{OPERATOR}", x, y)


def _scope(node: "onnx.NodeProto") -> str:
    """The graph node that an ONNX node came from."""
    parts = node.name.split("/")
    return parts[1] if len(parts) > 2 else ""


def _constants(graph: "onnx.GraphProto") -> Mapping[str, object]:
    """What does not depend on the inputs: initializers and the outputs of Constant nodes."""
    found: dict[str, object] = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" or (node.input and all(x in found for x in node.input)):
            found.update((output, node) for output in node.output)
    return found


def _drop_unused(graph: "onnx.GraphProto") -> None:
    """Nodes and initializers that only the replaced layers needed."""
    used = {x.name for x in graph.output}
    for node in reversed(list(graph.node)):
        if used.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            used.update(node.input)
    for tensor in [found for found in graph.initializer if found.name not in used]:
        graph.initializer.remove(tensor)

"""Where student and teacher can be compared inside the network: the joints of the residual stream.

A *joint* is a node through which everything that flows from the inputs to the outputs passes:
while it is computed, no other activation is waiting to be used. In a transformer these are the
sums (or, with the norm behind them, the norms) that end attention and feed-forward parts; in a
residual CNN the activations that end the blocks. They are found from the dataflow alone, so no
architecture is named here.
"""

from collections.abc import Sequence

import torch
from torch import fx
from torch.fx import Node

from edgeprune.graph.ops import op_name, output_shapes

# Operators that hold weights; what flows out of one depends on what the model has learnt.
_PRODUCTS = ("linear", "addmm", "matmul", "mm", "bmm", "baddbmm", "einsum", "embedding")
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_WEIGHTED = frozenset(_PRODUCTS + _CONVOLUTIONS + _TRANSPOSED)


def joints(graph: fx.Graph) -> list[Node]:
    """The joints in the order they are computed, the last of each run of mere element-wise steps.

    Masks and position tables are not activations: only what depends both on an input and on a
    weighted operator counts.
    """
    active = _activations(graph)
    order = {node: index for index, node in enumerate(graph.nodes)}
    last_use = {
        node: max((order[user] for user in node.users), default=order[node]) for node in active
    }
    found: list[Node] = []
    waiting: set[Node] = set()
    for node in graph.nodes:
        waiting = {other for other in waiting if last_use[other] > order[node]}
        if node not in active:
            continue
        waiting.add(node)
        if waiting == {node} and _is_float_tensor(node):
            found.append(node)
    return _last_of_runs(found)


def paired_joints(student: fx.Graph, teacher: fx.Graph) -> tuple[str, ...]:
    """Names of the joints that both graphs have with equal shapes, in order of computation.

    The outputs themselves are left out: they have their own term.
    """
    shapes = {node.name: output_shapes(node) for node in joints(teacher)}
    outputs = {node.name for node in student.output_node().all_input_nodes}
    return tuple(
        node.name
        for node in joints(student)
        if shapes.get(node.name) == output_shapes(node) and node.name not in outputs
    )


def return_also(module: fx.GraphModule, names: Sequence[str]) -> fx.GraphModule:
    """The same module, parameters shared, that returns the named nodes behind its outputs."""
    graph = fx.Graph()
    copied: dict[Node, Node] = {}
    result = graph.graph_copy(module.graph, copied)
    by_name = {node.name: copied[node] for node in module.graph.nodes if node in copied}
    outputs = tuple(result) if isinstance(result, tuple | list) else (result,)
    graph.output((*outputs, *(by_name[name] for name in names)))
    return fx.GraphModule(module, graph)


def _activations(graph: fx.Graph) -> set[Node]:
    """Nodes whose value depends on an input through a weighted operator."""
    fed: set[Node] = set()
    active: set[Node] = set()
    for node in graph.nodes:
        inputs = node.all_input_nodes
        if node.op == "placeholder":
            fed.add(node)
        elif node.op == "call_function" and any(i in fed for i in inputs):
            if output_shapes(node):
                fed.add(node)
            weighted = op_name(node) in _WEIGHTED and any(i.op == "get_attr" for i in inputs)
            if output_shapes(node) and (weighted or any(i in active for i in inputs)):
                active.add(node)
    return active


def _is_float_tensor(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _last_of_runs(found: list[Node]) -> list[Node]:
    """Leave out a joint that is only passed on, without weights, to the next joint."""
    kept = []
    for node, following in zip(found, [*found[1:], None]):
        passed_on = (
            following is not None
            and list(node.users) == [following]
            and op_name(following) not in _WEIGHTED
            and output_shapes(following) == output_shapes(node)
        )
        if not passed_on:
            kept.append(node)
    return kept

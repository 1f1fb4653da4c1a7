"""Values of nodes that depend on no input: position indices, masks, tables."""

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import Node

from edgeprune.graph.functionalise import storage_roots
from edgeprune.graph.ops import is_mutable, op_name

# Tensors of one value, of sizes that are given or those of another tensor.
FILLED = ("zeros", "ones", "full", "new_zeros", "new_ones", "new_full")
FILLED_LIKE = ("zeros_like", "ones_like", "full_like")
_FROM_SHAPE = {
    *FILLED, *FILLED_LIKE, "arange", "linspace", "eye", "scalar_tensor", "tril_indices",
    "triu_indices",
}  # fmt: skip
_UNDEFINED = {"empty", "empty_like", "new_empty", "rand", "randn", "rand_like", "randn_like"}


def fold_constants(
    graph: fx.Graph, states: dict[Node, Tensor]
) -> tuple[dict[Node, Any], set[Node]]:
    """Values of all constant nodes, and the nodes whose storage is written with other data.

    Integer buffers are constants; floating-point ones are parameters in all but name.
    """
    impure = _written(graph, states)
    found: dict[Node, Any] = {}
    for node in graph.nodes:
        if node in impure:
            continue
        if node.op == "get_attr" and not states[node].is_floating_point():
            found[node] = states[node].clone()
        elif node.op == "call_function" and _is_constant(node, found):
            found[node] = _evaluate(node, found)
    return found, impure


def _written(graph: fx.Graph, states: dict[Node, Tensor]) -> set[Node]:
    """Every node that shares storage with one written in place from non-constant data."""
    roots = storage_roots(graph)
    dirty: set[Node] = set()
    depends = _depends_on_data(graph, states)
    for node in graph.nodes:
        if is_mutable(node) and node in depends:
            dirty.update(roots[n] for n in node.all_input_nodes[:1])
    return {node for node, root in roots.items() if root in dirty}


def written_constants(graph: fx.Graph) -> set[Node]:
    """Nodes whose storage some operator writes: their value depends on when it is read."""
    roots = storage_roots(graph)
    dirty = {roots[n] for node in graph.nodes if is_mutable(node) for n in node.all_input_nodes[:1]}
    return {node for node, root in roots.items() if root in dirty}


def _depends_on_data(graph: fx.Graph, states: dict[Node, Tensor]) -> set[Node]:
    depends: set[Node] = set()
    for node in graph.nodes:
        floating = node.op == "get_attr" and states[node].is_floating_point()
        data = node.op == "placeholder" or floating
        if data or (
            op_name(node) not in _FROM_SHAPE and any(i in depends for i in node.all_input_nodes)
        ):
            depends.add(node)
    return depends


def _is_constant(node: Node, found: dict[Node, Any]) -> bool:
    name = op_name(node)
    if name in _UNDEFINED:
        return False
    filled = name in FILLED or name in FILLED_LIKE
    if filled and "dynamic" in node.meta and node.meta["val"].is_floating_point():
        return False  # as large as an input, and of one value: there is a rule
    if name in _FROM_SHAPE:
        return all(
            i in found or not isinstance(i.meta["val"], Tensor) or i is node.args[0]
            for i in node.all_input_nodes
        )
    sources = node.all_input_nodes
    known = all(i in found or isinstance(i.meta["val"], int | float | bool) for i in sources)
    return known and any(i in found for i in sources)


def _evaluate(node: Node, found: dict[Node, Any]) -> Any:
    def value(source: Node) -> Any:
        if source in found:
            return found[source]
        known = source.meta["val"]
        return torch.empty(known.shape, dtype=known.dtype) if isinstance(known, Tensor) else known

    args = torch.fx.node.map_arg(node.args, value)
    kwargs = torch.fx.node.map_arg(node.kwargs, value)
    with torch.no_grad():
        return node.target(*args, **kwargs)  # type: ignore[operator]

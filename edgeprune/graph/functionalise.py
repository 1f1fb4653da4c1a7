"""Replace in-place operators by their functional forms where no other reader can tell."""

from typing import Any

import torch
from torch import fx
from torch.fx import Node

from edgeprune.graph.ops import is_mutable, op_name

_MAY_ALIAS = {
    "reshape", "flatten", "contiguous", "to", "type_as", "expand_as", "view_as", "reshape_as",
    "dropout", "getitem", "unflatten", "narrow", "chunk", "split", "numpy_T", "movedim", "lift",
    "squeeze", "lift_fresh",
}  # fmt: skip


def functionalise(graph: fx.Graph) -> None:
    """Turn ``x.add_(y)`` into ``x + y`` unless ``x`` or a view of it is read again later.

    What stays in place is left to the coupling, which freezes it unless it is constant.
    """
    roots = storage_roots(graph)
    position = {node: index for index, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if not is_mutable(node):
            continue
        functional = _functional_overload(node)
        written = node.args[0]
        if functional is None or not isinstance(written, Node):
            continue
        base = roots[written]
        if base.op in ("placeholder", "get_attr"):
            continue
        aliases = [n for n, root in roots.items() if root is base and not _follows(n, node)]
        readers = (user for alias in aliases for user in alias.users if user is not node)
        if all(position[user] < position[node] for user in readers):
            node.target = functional


def _follows(alias: Node, write: Node) -> bool:
    """Whether a node aliases the storage through the result of the write."""
    current: Any = alias
    while isinstance(current, Node):
        if current is write:
            return True
        current = current.args[0] if current.args else None
    return False


def _functional_overload(node: Node) -> Any:
    schema = node.target._schema  # type: ignore[union-attr]
    namespace, name = schema.name.split("::")
    if not name.endswith("_"):
        return None
    packet = getattr(getattr(torch.ops, namespace), name[:-1], None)
    return getattr(packet, node.target._overloadname, None)  # type: ignore[union-attr]


def storage_roots(graph: fx.Graph) -> dict[Node, Node]:
    """For every node the first node whose storage it may share."""
    roots: dict[Node, Node] = {}
    for node in graph.nodes:
        roots[node] = node
        if node.op != "call_function" or not node.args:
            continue
        source = node.args[0]
        if isinstance(source, Node) and (_returns_alias(node) or op_name(node) in _MAY_ALIAS):
            roots[node] = roots[source]
    return roots


def _returns_alias(node: Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    return any(r.alias_info is not None for r in node.target._schema.returns)

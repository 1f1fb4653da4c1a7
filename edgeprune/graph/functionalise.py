"""Replace in-place operators by their functional forms, through the views they write by.

A write makes a new version of the storage that it changes: ``x[:, :3] += y`` is the sum, put
between what of ``x`` lies before and behind it. Who reads the storage later, by whatever view,
reads the new version.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import Node

from edgeprune.graph.ops import is_mutable, op_name
from edgeprune.graph.put_back import can_be_put_back, lies_contiguous, put_back

# What may or may not share the storage of its argument, depending on strides and types.
_MAY_ALIAS = {
    "reshape", "flatten", "contiguous", "to", "type_as", "expand_as", "view_as", "reshape_as",
    "dropout", "getitem", "unflatten", "narrow", "chunk", "split", "numpy_T", "movedim", "lift",
    "squeeze", "lift_fresh",
}  # fmt: skip


def functionalise(graph: fx.Graph) -> None:
    """Give every write a result of its own.

    What stays in place is left to the coupling, which freezes it unless it is constant: writes to
    inputs and parameters, and by views that cannot be put back.
    """
    roots = storage_roots(graph)
    family: dict[Node, list[Node]] = defaultdict(list)
    for node, root in roots.items():
        family[root].append(node)
    for root, members in family.items():
        writes = [n for n in members if is_mutable(n) and isinstance(n.args[0], Node)]
        if not writes or root.op in ("placeholder", "get_attr"):
            continue
        # Anew each time: what was put back for one storage may read another.
        position = {node: index for index, node in enumerate(graph.nodes)}
        if _has_versions(writes, members, position):
            _Versions(graph, members).make(writes)
        else:
            _replace_last_writes(writes, members, position)


def storage_roots(graph: fx.Graph) -> dict[Node, Node]:
    """For every node the first node whose storage it may share."""
    roots: dict[Node, Node] = {}
    for node in graph.nodes:
        roots[node] = node
        if node.op != "call_function" or not node.args:
            continue
        source = node.args[0]
        if op_name(node) == "contiguous" and lies_contiguous(source) is False:
            continue  # a copy
        if op_name(node) == "getitem" and isinstance(source, Node) and not _may_alias(source):
            continue  # each result has a storage of its own
        if isinstance(source, Node) and _may_alias(node):
            roots[node] = roots[source]
    return roots


def _has_versions(writes: list[Node], members: list[Node], position: dict[Node, int]) -> bool:
    """Whether all writes to a storage can be put back, and who reads it told which version."""
    root, *views = members
    for write in writes:
        view: Any = write.args[0]
        while view is not root:
            if not (is_mutable(view) or can_be_put_back(view)):
                return False
            view = view.args[0]
    uncertain: set[Node] = set()
    for view in views:
        if not _returns_alias(view) or view.args[0] in uncertain:
            uncertain.add(view)
    written_at = [position[write] for write in writes]
    return all(_functional_overload(write) is not None for write in writes) and not any(
        position[view] < written < position[reader]
        for view in uncertain
        for reader in view.users
        for written in written_at
    )


class _Versions:
    """The values that a storage has one after another, as its views show them."""

    def __init__(self, graph: fx.Graph, members: list[Node]) -> None:
        self._graph = graph
        self._root = members[0]
        self._source: dict[Node, Node] = {n: n.args[0] for n in members[1:]}  # type: ignore[misc]
        self._version = 0
        self._current = {node: (0, node) for node in members}
        self._written: set[Node] = set()

    def make(self, writes: list[Node]) -> None:
        """From the first write on, readers take the version of their time and writes make one."""
        node = writes[0]
        while node.op != "root":
            following = node.next
            with self._graph.inserting_before(node):
                for source in node.all_input_nodes:
                    if source in self._current:
                        node.replace_input_with(source, self._now(source))
            if node in writes:
                with self._graph.inserting_before(following):
                    self._write(node)
            elif node in self._current:
                self._current[node] = (self._version, node)
            node = following

    def _now(self, view: Node) -> Node:
        """What shows the present version as a view does."""
        if view in self._written:  # the result of a write is what it wrote to
            return self._now(self._source[view])
        version, value = self._current[view]
        if version < self._version:
            shown = self._now(self._source[view])
            value = self._graph.node_copy(view, lambda n: n)
            value.args = (shown, *view.args[1:])
            self._current[view] = (self._version, value)
        return value

    def _write(self, node: Node) -> None:
        view, new = self._source[node], _functional(node)
        self._written.add(node)
        shown = {}
        while True:
            while view in self._written:
                view = self._source[view]
            shown[view] = new
            if view is self._root:
                break
            source = self._source[view]
            new = put_back(self._graph, view, self._now(source), new, node)
            view = source
        self._version += 1
        self._current.update({view: (self._version, value) for view, value in shown.items()})


def _functional(write: Node) -> Node:
    """The value that is written: the operator's own, made functional, or what it copies."""
    write.target = _functional_overload(write)
    if op_name(write) != "copy":
        return write
    old, new = (source.meta.get("val") for source in write.args[:2])  # type: ignore[union-attr]
    if not (isinstance(old, Tensor) and isinstance(new, Tensor)):
        return write
    same = old.dtype == new.dtype and str(old.shape) == str(new.shape)
    return write.args[1] if same else write  # type: ignore[return-value]


def _replace_last_writes(
    writes: list[Node], members: list[Node], position: dict[Node, int]
) -> None:
    """Turn ``x.add_(y)`` into ``x + y`` where nothing reads ``x`` or a view of it afterwards."""
    for write in writes:
        functional = _functional_overload(write)
        if functional is None:
            continue
        aliases = [node for node in members if not _follows(node, write)]
        readers = (user for alias in aliases for user in alias.users if user is not write)
        if all(position[user] < position[write] for user in readers):
            write.target = functional


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


def _may_alias(node: Node) -> bool:
    return _returns_alias(node) or op_name(node) in _MAY_ALIAS


def _returns_alias(node: Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    return any(r.alias_info is not None for r in node.target._schema.returns)

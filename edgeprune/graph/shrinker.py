"""Builds the shrunk graph of a layout and the units that stay."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from edgeprune.errors import StructureError
from edgeprune.graph.capture import Captured
from edgeprune.graph.emptied import EmptyRules
from edgeprune.graph.layout import Layout, Units
from edgeprune.graph.modules import attach
from edgeprune.graph.ops import argument, hint, op_name, output_shapes
from edgeprune.graph.rules import REWRITE_RULES
from edgeprune.graph.rules.registry import Call

Kept = npt.NDArray[np.int64]


class Shrinker:
    """One rewriting of a captured graph.

    Rewrite rules ask it for sizes and survivors of the captured graph's nodes and return a call in
    terms of those nodes.
    """

    def __init__(
        self,
        captured: Captured,
        layout: Layout,
        constants: Mapping[Node, Any],
        stays: npt.NDArray[np.bool_],
        *,
        shapes_only: bool = False,
    ) -> None:
        self.captured = captured
        self.layout = layout
        self.constants = constants
        self.stays = stays
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.copies: dict[Node, Node] = {}
        self.compact: dict[Node, tuple[int, ...]] = {}
        """Shapes of copies that have size 1 where their value is constant."""
        self.shapes_only = shapes_only
        self._cut: set[Node] = set()
        self._kept: dict[int, Kept | None] = {}
        self.nodes_by_name = {node.name: node for node in captured.module.graph.nodes}
        self._extra = 0
        self._empty_rules = EmptyRules(self)

    # -- what rules ask

    def argument(self, node: Node, index: int, name: str = "", default: Any = None) -> Any:
        """An argument, with numbers in place of nodes that stand for numbers."""
        value = argument(node, index, name, default)
        if isinstance(value, Node) and not isinstance(value.meta["val"], Tensor):
            return hint(value)
        return value

    def rank(self, node: Any, output: int = 0) -> int:
        """Number of dimensions."""
        return len(output_shapes(node)[output])

    def size(self, node: Any, dim: int, output: int = 0) -> int:
        """Size before shrinking, at the example inputs."""
        return output_shapes(node)[output][dim]

    def units(self, node: Any, dim: int, output: int = 0) -> Units | None:
        """Units along a dimension."""
        if node.op == "get_attr":
            dims = self.layout.parameters.get(str(node.target))
        else:
            found = self.layout.values.get(node)
            dims = found[output] if found is not None else None
        return dims[dim % len(dims)] if dims is not None else None

    def kept(self, node: Any, dim: int, output: int = 0) -> Kept | None:
        """Positions that stay along a dimension, None if all do."""
        return self.survivors_of(self.units(node, dim, output))

    def survivors_of(self, units: Units | None) -> Kept | None:
        """Positions that stay of a vector of units, None if all do."""
        if units is None:
            return None
        key = id(units)
        if key not in self._kept:
            stays = self.layout.staying(units, self.stays)
            self._kept[key] = None if stays.all() else np.flatnonzero(stays)
        return self._kept[key]

    def new_size(self, node: Any, dim: int, output: int = 0) -> int:
        """Size after shrinking, at the example inputs."""
        kept = self.kept(node, dim, output)
        return self.size(node, dim, output) if kept is None else len(kept)

    def new_shape(self, node: Any, output: int = 0) -> tuple[int, ...]:
        """Shape after shrinking, at the example inputs."""
        return tuple(self.new_size(node, d, output) for d in range(self.rank(node, output)))

    def copy_shape(self, node: Node, output: int = 0) -> tuple[int, ...]:
        """Shape of the copy at the example inputs: smaller than the value where it is constant."""
        shape = self.new_shape(node, output)
        pairs = zip(shape, self.compact.get(node, shape), strict=True)
        return tuple(min(pair) for pair in pairs)

    def changed_dims(self, node: Any) -> list[int]:
        """Dimensions that lose something."""
        return [d for d in range(self.rank(node)) if self.kept(node, d) is not None]

    def is_empty(self, node: Any) -> bool:
        """Whether nothing is left of any of the node's tensors that had entries."""
        before = output_shapes(node)
        return bool(before) and all(
            any(now == 0 < size for now, size in zip(self.new_shape(node, i), shape, strict=True))
            for i, shape in enumerate(before)
        )

    def dynamic_size(self, node: Node, dim: int) -> "Copied":
        """A dynamic size, computed from the shrunk graph's inputs."""
        placeholder, source_dim = node.meta["dynamic"][dim]
        source = next(n for n in self.captured.module.graph.nodes if n.target == placeholder)
        args = (self.copies[source], source_dim)
        return Copied(self.add_call(f"{node.name}_size_{dim}", torch.ops.aten.sym_size.int, args))

    def survivors(self, node: Node, source: Any, dim: int) -> Any:
        """An index vector that reads, among survivors, what ``node`` read of ``source``.

        ``node`` may be a strided slice, an index or an index_select over ``dim``.
        """
        original = np.arange(self.size(source, dim))
        name = op_name(node)
        if name == "slice":
            start, stop = self.argument(node, 2, "start"), self.argument(node, 3, "end")
            picked = original[slice(start, stop, self.argument(node, 4, "step", 1))]
        else:
            index = node.args[2] if name == "index_select" else node.args[1][dim]  # type: ignore[index]
            picked = original[self.constants[index].numpy()]  # type: ignore[index]
        kept = self.kept(node, dim)
        picked = picked if kept is None else picked[kept]
        position = np.full(len(original), -1)
        survivors = self.kept(source, dim)
        position[original if survivors is None else survivors] = np.arange(
            len(original) if survivors is None else len(survivors)
        )
        return Copied(self.add_buffer(f"{node.name}_index", torch.from_numpy(position[picked])))

    def add_buffer(self, name: str, value: Tensor) -> Node:
        """A new constant of the shrunk graph."""
        self.root.register_buffer(name, value)
        node = self.graph.get_attr(name)
        self._aside(node, name)
        return node

    def make(self, name: str, target: Any, *args: Any) -> "Copied":
        """A new operator on captured nodes, for the arguments of a rewritten call."""
        return Copied(self.add_call(name, target, _map(args, self.full)))

    def add_call(self, name: str, target: Any, args: tuple[Any, ...]) -> Node:
        """A new operator of the shrunk graph."""
        node = self.graph.call_function(target, args)
        self._aside(node, name)
        return node

    def _aside(self, node: Node, name: str) -> None:
        """Name a node that the captured graph does not have."""
        self._extra += 1
        node.name = f"{name}__{self._extra}"

    # -- the rewriting

    def run(self, state: Mapping[str, Tensor] | None = None) -> fx.GraphModule:
        """The shrunk graph module, with its own copies of all parameters."""
        self.build(state)
        self.graph.lint()
        return fx.GraphModule(self.root, self.graph, "Shrunk")

    def build(self, state: Mapping[str, Tensor] | None = None) -> fx.Graph:
        """The shrunk graph without dead code, and its tensors in ``root``."""
        for node in self.captured.module.graph.nodes:
            if node.op == "output":
                made = self.graph.output(tuple(self.full(result) for result in node.args[0]))
                made.meta = dict(node.meta)
            else:
                self._copy(node, state)
        self.graph.eliminate_dead_code()
        for node in list(self.graph.nodes):
            if node.op == "get_attr" and not node.users:
                self.graph.erase_node(node)
        return self.graph

    def _copy(self, node: Node, state: Mapping[str, Tensor] | None) -> None:
        if node.op == "placeholder":
            self.copies[node] = self.graph.placeholder(str(node.target))
        elif output_shapes(node) and self.is_empty(node) and self._loses(node):
            return
        elif node.op == "get_attr":
            self._copy_parameter(node, state)
        elif self._needs_constant(node):
            self._copy_constant(node)
        elif self._empty_rules.applies(node):
            self.copies[node] = self._empty_rules.replace(node)
        else:
            self.copies[node] = self.copy_call(node, self.full)
        copied = self.copies[node]
        copied.meta = self._new_meta(node)
        copied.name = node.name

    def _new_meta(self, node: Node) -> dict[str, Any]:
        """The captured node's meta with the shapes of what is left."""
        meta = {key: value for key, value in node.meta.items() if key != "shapes"}
        index = iter(range(len(output_shapes(node))))

        def smaller(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            sizes = self.copy_shape(node, next(index))
            return torch.empty(sizes, dtype=value.dtype, device="meta")

        meta["val"] = torch.utils._pytree.tree_map(smaller, node.meta.get("val"))
        return meta

    def _loses(self, node: Node) -> bool:
        found = self.layout.values.get(node)
        dims = found if found is not None else (self.layout.parameters.get(str(node.target), ()),)
        return any(self.survivors_of(d) is not None for part in dims for d in part)

    def _copy_parameter(self, node: Node, state: Mapping[str, Tensor] | None) -> None:
        name = str(node.target)
        original = operator.attrgetter(name)(self.captured.module)
        if self.shapes_only:
            kept = self.parameter_survivors(name)
            shape = list(original.shape)
            for dim, positions in enumerate(kept):
                shape[dim] = shape[dim] if positions is None else len(positions)
            attach(self.root, name, torch.empty(shape, dtype=original.dtype))
            self.copies[node] = self.graph.get_attr(name)
            return
        value = original if state is None or name not in state else state[name]
        if value.shape != original.shape:
            raise StructureError(
                f"state has {name} with shape {list(value.shape)}, the network has "
                f"{list(original.shape)}; give full-size tensors"
            )
        small = select(value.detach(), self.parameter_survivors(name)).clone()
        if isinstance(original, nn.Parameter):
            attach(self.root, name, nn.Parameter(small, requires_grad=original.requires_grad))
        else:
            attach(self.root, name, small)
        self.copies[node] = self.graph.get_attr(name)

    def parameter_survivors(self, name: str) -> list[Kept | None]:
        """Positions that stay, per dimension of a parameter."""
        return [self.survivors_of(d) for d in self.layout.parameters.get(name, ())]

    def _needs_constant(self, node: Node) -> bool:
        """Whether a constant can no longer be computed as it was: it, or what it is computed of,
        lost something."""
        if not isinstance(self.constants.get(node), Tensor):
            return False
        return self._loses(node) or any(i in self._cut for i in node.all_input_nodes)

    def _copy_constant(self, node: Node) -> None:
        self._cut.add(node)
        value = self.constants[node]
        found = self.layout.values.get(node)
        dims = found[0] if found is not None else ()
        small = select(value, [self.survivors_of(d) for d in dims]).clone()
        self.copies[node] = self.add_buffer(f"constant_{node.name}", small)

    def copy_call(self, node: Node, copy_of: Callable[[Node], Node]) -> Node:
        """The node's shrunk call, on the given copies of its operands."""
        rule = REWRITE_RULES.get(op_name(node))
        call = rule(self, node) if rule is not None else Call.of(node)
        args, kwargs = _map(call.args, copy_of), _map(call.kwargs, copy_of)
        return self.graph.call_function(call.target, args, kwargs)

    def full(self, node: Node) -> Node:
        """The copy of a node in its full shape."""
        if node not in self.copies:
            raise StructureError(f"nothing is left of {node.name}, which is still needed")
        return self._empty_rules.expand(node) if node in self.compact else self.copies[node]


class Copied:
    """Marks an argument that already belongs to the shrunk graph."""

    def __init__(self, node: Node) -> None:
        self.node = node


def _map(value: Any, function: Any) -> Any:
    if isinstance(value, Copied):
        return value.node
    if isinstance(value, Node):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)(_map(item, function) for item in value)
    if isinstance(value, dict):
        return {key: _map(item, function) for key, item in value.items()}
    return value


def select(value: Tensor, kept: list[Kept | None]) -> Tensor:
    """The entries that stay."""
    for dim, positions in enumerate(kept):
        if positions is not None:
            value = value.index_select(dim, torch.from_numpy(positions).to(value.device))
    return value

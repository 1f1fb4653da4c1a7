"""What remains of a layer when every unit it consumes is gone.

A linear layer or convolution without input gives its bias, or zero, everywhere. Such a value is
kept compact, with size 1 in the dimensions over which it is constant, as long as the operators
behind it broadcast, so that an emptied residual block costs one addition.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.errors import StructureError
from edgeprune.graph.expert_choice import GROUPED
from edgeprune.graph.ops import argument, op_name, output_shapes
from edgeprune.graph.rules.elementwise import BINARY, UNARY

if TYPE_CHECKING:
    from edgeprune.graph.shrinker import Shrinker

_ELEMENTWISE = frozenset(UNARY) | frozenset(BINARY)
_CONVOLUTIONS = {
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
}  # fmt: skip
_SUMS = {"matmul", "mm", "bmm", "einsum", "sum", "linalg_vector_norm", "norm", *GROUPED}
# Of zeros these make zeros: a product of whatever else, too, is one with "mul".
_OF_ZERO = frozenset({
    "_to_copy", "clone", "contiguous", "dropout", "expand", "flatten", "gelu", "index",
    "index_select", "mean", "neg", "permute", "relu", "reshape", "select", "silu", "slice",
    "squeeze", "sum", "tanh", "to", "transpose", "unsqueeze", "view",
})  # fmt: skip

_DYNAMIC = 1 << 40

aten = torch.ops.aten


class EmptyRules:
    """Replaces operators whose operand is empty, and keeps constant results compact."""

    def __init__(self, shrinker: "Shrinker") -> None:
        self.s = shrinker
        self._zeros: set[Node] = set()

    def applies(self, node: Node) -> bool:
        """Whether an operand is gone or compact."""
        return any(self._gone(i) or i in self.s.compact for i in node.all_input_nodes)

    def _gone(self, node: Node) -> bool:
        return node not in self.s.copies and bool(output_shapes(node))

    def replace(self, node: Node) -> Node:
        """The copy of a node with an empty or a compact operand."""
        name = op_name(node)
        if not any(self._gone(i) for i in node.all_input_nodes):
            return self._constant(node, 0.0) if self._is_zero(node) else self._pass_on(node)
        if name in ("linear", "addmm") or name in _CONVOLUTIONS:
            return self._bias(node)
        if name == "cat":
            return self._join_rest(node)
        if name in _SUMS:
            return self._constant(node, 0.0)
        if name in ("pad", "constant_pad_nd"):
            return self._constant(node, float(argument(node, 3, "value") or 0.0))
        raise StructureError(
            f"{node.name} ({name}) cannot run on nothing; keep at least one unit of what it reads"
        )

    # -- operands that are gone

    def _bias(self, node: Node) -> Node:
        """The layer's bias, shaped to broadcast over its output."""
        bias = node.args[0] if op_name(node) == "addmm" else argument(node, 2, "bias")
        if any(node.kwargs.get(scale, 1) != 1 for scale in ("beta", "alpha")):
            raise StructureError(f"{node.name} scales its bias; keep at least one unit it reads")
        rank = self.s.rank(node)
        shape = [1] * rank
        dim = 1 if op_name(node) in _CONVOLUTIONS else rank - 1
        shape[dim] = self.s.new_size(node, dim)
        if not isinstance(bias, Node):
            return self._constant(node, 0.0, tuple(shape))
        copy = self.s.graph.call_function(aten.reshape.default, (self.s.copies[bias], shape))
        return self._note(node, copy, tuple(shape))

    def _constant(self, node: Node, value: float, shape: tuple[int, ...] | None = None) -> Node:
        shape = shape or (1,) * self.s.rank(node)
        if value == 0.0:
            self._zeros.add(node)
        dtype = node.meta["val"].dtype
        buffer = torch.full(shape, value, dtype=dtype)
        return self._note(node, self.s.add_buffer(f"constant_{node.name}", buffer), shape)

    def _join_rest(self, node: Node) -> Node:
        parts: list[Any] = [p for p in node.all_input_nodes if not self._gone(p)]
        copies = [self.s.full(part) for part in parts]
        dim = self.s.argument(node, 1, "dim", 0)
        return self.s.graph.call_function(aten.cat.default, (copies, dim))

    # -- operands that are constant over some dimensions

    def _is_zero(self, node: Node) -> bool:
        name = op_name(node)
        if name == "mul":
            return any(source in self._zeros for source in node.all_input_nodes)
        if name == "div" and isinstance(node.args[1], Node):  # nothing by nothing is no number
            return False
        return (name in _OF_ZERO or name == "div") and node.args[0] in self._zeros

    def _pass_on(self, node: Node) -> Node:
        keep = self._compact_shape(node)
        if keep is None:
            return self.s.copy_call(node, self.s.full)
        copy = self.s.copy_call(node, lambda source: self.s.copies[source])
        return self._note(node, copy, keep)

    def _compact_shape(self, node: Node) -> tuple[int, ...] | None:
        """Shape of the result on compact operands, None if they must be expanded first."""
        name = op_name(node)
        if name in _ELEMENTWISE:
            shapes = [self._copy_shape(i) for i in node.all_input_nodes if _is_tensor(i)]
            return _broadcast(shapes)
        source = node.args[0]
        if not isinstance(source, Node):
            return None
        others = [i for i in node.all_input_nodes if i is not source]
        if any(i in self.s.compact for i in others):
            return None
        shape, full = self._copy_shape(source), self.s.new_shape(source)
        if name == "batch_norm" and shape[1] == full[1]:
            return shape
        over = len(node.args[1]) if name in ("layer_norm", "rms_norm") else 1  # type: ignore[arg-type]
        if name in ("layer_norm", "rms_norm") and shape[-over:] == full[-over:]:
            return shape
        if name == "linear" and shape[-1] == full[-1]:
            return (*shape[:-1], self.s.new_size(node, self.s.rank(node) - 1))
        return None

    def _copy_shape(self, node: Node) -> tuple[int, ...]:
        """Shape of the copy; a dynamic size counts as large, whatever it is in the example."""
        if node in self.s.compact:
            return self.s.compact[node]
        dynamic = node.meta.get("dynamic") or (None,) * self.s.rank(node)
        sizes = zip(self.s.new_shape(node), dynamic, strict=True)
        return tuple(size if known is None else _DYNAMIC for size, known in sizes)

    def _note(self, node: Node, copy: Node, shape: tuple[int, ...]) -> Node:
        if shape != self._copy_shape(node):
            self.s.compact[node] = shape
        return copy

    def expand(self, node: Node) -> Node:
        """The full-size value of a compact node."""
        dynamic = node.meta.get("dynamic") or (None,) * self.s.rank(node)
        sizes: list[Any] = []
        for dim, size in enumerate(self.s.new_shape(node)):
            if dynamic[dim] is None:
                sizes.append(size)
            elif self.s.compact[node][dim] != 1:
                sizes.append(-1)  # as it is
            elif dynamic[dim] == "derived" and self._is_zero(node):
                return self.s.copy_call(node, self.s.full)  # what made it knows its size
            elif dynamic[dim] == "derived":
                raise StructureError(
                    f"{node.name} is constant now and its dynamic shape cannot be restored; "
                    "keep at least one unit of what it reads"
                )
            else:
                sizes.append(self.s.dynamic_size(node, dim).node)
        return self.s.add_call(
            f"{node.name}_expanded", aten.expand.default, (self.s.copies[node], sizes)
        )


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    rank = max(len(shape) for shape in shapes)
    wide = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max(sizes) for sizes in zip(*wide, strict=True))


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)

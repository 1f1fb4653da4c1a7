"""Operators that only move data: they run on the labels as they run on the values."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.ops import op_name
from edgeprune.graph.rules.registry import Call, labels, rewrites

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Weight
    from edgeprune.graph.shrinker import Shrinker

_DIRECT = (
    "unsqueeze", "split", "chunk", "split_with_sizes", "tensor_split", "narrow",
    "movedim", "flip", "tile", "pixel_shuffle", "pixel_unshuffle",
    "slice", "select", "repeat_interleave",
)  # fmt: skip


@labels(*_DIRECT)
def label_moved(c: "Coupling", node: Node) -> Any:
    """The operator itself, applied to labels."""
    name = op_name(node)
    if name == "unsqueeze":
        weight = moved_weight(c, node)
        if weight is not None:
            return weight
    if name == "repeat_interleave" and isinstance(node.args[1], Node):
        return None
    return run_on_labels(c, node, c.labels(node.args[0]))


@labels("unbind", "roll", "unfold")
def label_positional(c: "Coupling", node: Node) -> Any:
    """Operators that count positions: along their dimension nothing may be lost in part."""
    x = c.labels(node.args[0])
    given = c.argument(node, {"unbind": 1, "roll": 2}.get(op_name(node), 1), "dim", 0)
    dims = list(given) if isinstance(given, list | tuple) else [given]
    if c.resolving and x.dim():
        c.tie(x, [d % x.dim() for d in dims] or list(range(x.dim())))
    return run_on_labels(c, node, x)


@labels("permute", "transpose", "t", "numpy_T", "mT", "squeeze")
def label_permuted(c: "Coupling", node: Node) -> Any:
    """Like the others, but a weight may be moved before it is used."""
    weight = moved_weight(c, node)
    return weight if weight is not None else run_on_labels(c, node, c.labels(node.args[0]))


def run_on_labels(c: "Coupling", node: Node, x: Tensor) -> Any:
    """Apply the node's own operator to a label tensor."""
    args = [c.argument(node, i) for i in range(1, len(node.args))]
    result = node.target(x, *args, **node.kwargs)  # type: ignore[operator]
    return tuple(result) if isinstance(result, list | tuple) else result


@labels("getitem")
def label_item(c: "Coupling", node: Node) -> Any:
    """One of several results."""
    return c.values[node.args[0]][node.args[1]]  # type: ignore[index]


# -- weights that are moved before use

_TRANSPARENT = {
    "transpose", "t", "numpy_T", "mT", "permute", "squeeze", "unsqueeze", "to", "contiguous",
    "detach", "clone", "mul", "div", "type_as", "alias",
}  # fmt: skip


def becomes_weight(node: Node) -> bool:
    """Whether a moved parameter ends as the weight of a layer."""
    for user in node.users:
        name = op_name(user) if user.op == "call_function" else ""
        place = {"linear": 1, "conv1d": 1, "conv2d": 1, "conv3d": 1, "matmul": 1, "mm": 1,
                 "addmm": 2, "grouped_mm_fallback": 1}.get(name)  # fmt: skip
        if place is not None and len(user.args) > place and user.args[place] is node:
            return True
        if name in _TRANSPARENT and user.args[0] is node and becomes_weight(user):
            return True
    return False


def weight_behind(c: "Coupling", node: Node) -> "Weight | None":
    """The weight that an operator moves, scales or casts on its way to a layer."""
    from edgeprune.graph.coupling import Weight

    source = node.args[0]
    if not isinstance(source, Node):
        return None
    if isinstance(c.values.get(source), Weight):
        return c.weight(source)
    if c.is_parameter(source) and c.states[source].dim() >= 2 and becomes_weight(node):
        return c.weight(source)
    return None


def moved_weight(c: "Coupling", node: Node) -> "Weight | None":
    """A transposed, permuted, squeezed or unsqueezed weight; None if it is not a weight."""
    from edgeprune.graph.coupling import Weight

    weight = weight_behind(c, node)
    if weight is None:
        return None
    rank, name = len(weight.dims), op_name(node)
    order: list[int] = list(range(rank))
    if name == "permute":
        order = [d % rank for d in c.argument(node, 1, "dims")]
    elif name == "numpy_T":
        order.reverse()
    elif name in ("transpose", "t", "mT"):
        named = {"t": (0, 1), "mT": (-2, -1)}
        first, second = named[name] if name in named else (node.args[1], node.args[2])
        order[first], order[second] = order[second], order[first]  # type: ignore[index]
    dims, axes = [weight.dims[d] for d in order], [weight.axes[d] for d in order]
    if name in ("squeeze", "unsqueeze"):
        place = c.argument(node, 1, "dim")
        place = place[0] if isinstance(place, list | tuple) else place
        shape = c.shape(node)
        if name == "unsqueeze":
            dims.insert(place % len(shape), torch.zeros(1, dtype=torch.int64))
            axes.insert(place % len(shape), -1)
        elif place is not None and len(shape) == rank - 1:
            dims.pop(place)
            axes.pop(place)
        elif len(shape) != rank:
            return None
    return Weight(tuple(dims), weight.parameter, tuple(axes))


def scaled_weight(c: "Coupling", node: Node) -> "Weight | None":
    """A weight times or divided by one number."""
    if op_name(node) not in ("mul", "div"):
        return None
    others = [a for a in node.args[1:] if isinstance(a, Node)]
    if any(isinstance(a.meta["val"], Tensor) and a.meta["val"].numel() != 1 for a in others):
        return None
    return weight_behind(c, node)


# -- how the calls shrink


@rewrites("slice")
def shrink_slice(s: "Shrinker", node: Node) -> Call:
    """Bounds counted in survivors."""
    call, source = Call.of(node), node.args[0]
    dim = s.argument(node, 1, "dim", 0)
    kept = s.kept(source, dim)
    if kept is None:
        return call
    size = s.size(source, dim)
    start = s.argument(node, 2, "start", 0) or 0
    start = max(0, start + size) if start < 0 else min(start, size)
    step = s.argument(node, 4, "step", 1)
    length = s.new_size(node, dim)
    if step == 1:
        begin = int((kept < start).sum())
        return Call(node.target, (source, dim, begin, begin + length), {})
    return Call(
        torch.ops.aten.index_select.default, (source, dim, s.survivors(node, source, dim)), {}
    )


@rewrites("narrow")
def shrink_narrow(s: "Shrinker", node: Node) -> Call:
    """Start and length counted in survivors."""
    source, dim = node.args[0], s.argument(node, 1, "dim")
    kept = s.kept(source, dim)
    if kept is None:
        return Call.of(node)
    start = int((kept < s.argument(node, 2, "start")).sum())
    return Call(node.target, (source, dim, start, s.new_size(node, dim)), {})


@rewrites("select")
def shrink_select(s: "Shrinker", node: Node) -> Call:
    """The index counted in survivors."""
    source, dim, index = node.args[0], s.argument(node, 1), s.argument(node, 2)
    kept = s.kept(source, dim)
    if kept is None:
        return Call.of(node)
    position = int((kept < index % s.size(source, dim)).sum())
    return Call(node.target, (source, dim, position), {})


@rewrites("split", "chunk", "split_with_sizes", "tensor_split")
def shrink_split(s: "Shrinker", node: Node) -> Call:
    """Explicit sizes where a part lost something."""
    source = node.args[0]
    dim = s.argument(node, 2, "dim", 0)
    if s.kept(source, dim) is None:
        return Call.of(node)
    parts = len(node.meta["val"])
    sizes = [s.new_size(node, dim, output=i) for i in range(parts)]
    return Call(torch.ops.aten.split_with_sizes.default, (source, sizes, dim), {})

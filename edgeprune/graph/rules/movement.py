"""Operators that only move data: they run on the labels as they run on the values."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.ops import op_name, output_shapes
from edgeprune.graph.planes import Plane, Planes
from edgeprune.graph.rules.registry import Call, labels, rewrites

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Value
    from edgeprune.graph.shrinker import Shrinker

_DIRECT = (
    "unsqueeze", "split", "chunk", "split_with_sizes", "tensor_split", "narrow", "permute",
    "transpose", "t", "numpy_T", "mT", "squeeze", "movedim", "flip", "tile", "pixel_shuffle",
    "pixel_unshuffle", "slice", "select", "repeat_interleave",
)  # fmt: skip


@labels(*_DIRECT)
def label_moved(c: "Coupling", node: Node) -> "Value | None":
    """The operator itself, applied to labels."""
    if op_name(node) == "repeat_interleave" and isinstance(node.args[1], Node):
        return None
    return run_on_labels(c, node, c.planes(node.args[0]))


@labels("unbind", "roll", "unfold")
def label_positional(c: "Coupling", node: Node) -> "Value":
    """Operators that count positions: along their dimension nothing may be lost in part."""
    x = c.planes(node.args[0])
    given = c.argument(node, 1 if op_name(node) != "roll" else 2, "dim", 0)
    dims = list(given) if isinstance(given, list | tuple) else [given]
    rank = len(x.shape)
    for part in x.parts if c.resolving and rank else ():
        c.tie(part.labels, [d % rank for d in dims] or list(range(rank)))
    return run_on_labels(c, node, x)


def run_on_labels(c: "Coupling", node: Node, x: Planes) -> "Value":
    """Apply the node's own operator to every plane."""
    args = [c.argument(node, i) for i in range(1, len(node.args))]
    return moved(node, x, lambda labels_: node.target(labels_, *args, **node.kwargs))  # type: ignore[operator]


def moved(node: Node, x: Planes, function: Callable[[Tensor], Any]) -> "Value":
    """The planes of all results of a move of data."""
    results = [(part, function(part.labels)) for part in x.parts]
    if not isinstance(node.meta["val"], tuple | list):
        parts = tuple(Plane(labels_, part.zero) for part, labels_ in results)
        return Planes(output_shapes(node)[0], parts)
    return tuple(
        Planes(shape, tuple(Plane(found[i], part.zero) for part, found in results))
        for i, shape in enumerate(output_shapes(node))
    )


@labels("getitem")
def label_item(c: "Coupling", node: Node) -> "Value":
    """One of several results."""
    return c.values[node.args[0]][node.args[1]]  # type: ignore[index]


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


@rewrites("repeat_interleave")
def shrink_repeated(s: "Shrinker", node: Node) -> Call:
    """Its size is what the repeats give; the one that was given is the old one."""
    call = Call.of(node)
    return Call(call.target, call.args[:3], {k: v for k, v in call.kwargs.items() if k == "dim"})


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

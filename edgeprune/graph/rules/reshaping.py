"""Views, reshapes and expansions: labels move; sizes that changed are written anew."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node

from edgeprune.graph.constants import FILLED, FILLED_LIKE
from edgeprune.graph.labels import CONSTANT
from edgeprune.graph.ops import op_name
from edgeprune.graph.planes import Planes, laid_out
from edgeprune.graph.rules.elementwise import tie_broadcast
from edgeprune.graph.rules.movement import run_on_labels
from edgeprune.graph.rules.registry import Call, labels, rewrites

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Value
    from edgeprune.graph.shrinker import Shrinker


@labels("view", "reshape", "view_as", "reshape_as", "flatten", "unflatten", "_unsafe_view")
def label_reshaped(c: "Coupling", node: Node) -> "Value | None":
    """The labels in the new shape."""
    if op_name(node) == "view" and isinstance(node.args[1], torch.dtype):
        return None
    shape = c.shape(node)
    return c.planes(node.args[0]).map(lambda x: x.reshape(shape), shape)


@labels("expand", "broadcast_to")
def label_expanded(c: "Coupling", node: Node) -> "Value":
    """The labels, expanded. Copies of data that has none may be as many as there are features."""
    x, shape = c.planes(node.args[0]), c.shape(node)
    copies = [1] * (len(shape) - len(x.shape)) + list(x.shape)
    grown = [d for d, size in enumerate(copies) if size == 1 and shape[d] > 1]
    if x.parts or not node.meta["val"].is_floating_point():
        return x.map(lambda labels_: labels_.expand(shape), shape)
    return _same_along(c, node, grown, False)


def _same_along(c: "Coupling", node: Node, dims: Sequence[int], zero: bool) -> Planes:
    """Planes of a value that is the same all along these dimensions, and takes any size there.

    Those that are dynamic have no units.
    """
    shape = c.shape(node)
    dynamic = node.meta.get("dynamic") or (None,) * len(shape)
    vectors = [
        c.sets.fresh(size, f"{node.name}:copies {d}", CONSTANT)
        if d in dims and dynamic[d] is None
        else None
        for d, size in enumerate(shape)
    ]
    return laid_out(vectors, shape, zero=zero)


@labels(*FILLED, *FILLED_LIKE)
def label_filled(c: "Coupling", node: Node) -> "Value":
    """One value for all positions. Constants do not come here, so that some size is dynamic."""
    wide = [d for d, size in enumerate(c.shape(node)) if size > 1]
    data = node.meta["val"].is_floating_point()
    return _same_along(c, node, wide if data else [], _fill_value(c, node) == 0)


def _fill_value(s: "Coupling | Shrinker", node: Node) -> Any:
    name = op_name(node)
    if "full" not in name:
        return 0 if "zeros" in name else 1
    return s.argument(node, 2 if name == "new_full" else 1, "fill_value")


@labels("expand_as")
def label_expanded_as(c: "Coupling", node: Node) -> "Value":
    """Expanded to the shape of another value, whose labels the copies therefore have."""
    return tie_broadcast(c, c.planes(node.args[0]), c.planes(node.args[1]), c.shape(node), "first")


@labels("repeat")
def label_repeated(c: "Coupling", node: Node) -> "Value":
    """Like expansion where only dimensions of size 1 repeat."""
    x, shape = c.planes(node.args[0]), c.shape(node)
    counts = c.argument(node, 1, "repeats")
    lifted = (1,) * (len(counts) - len(x.shape)) + x.shape
    if all(count == 1 or lifted[d] == 1 for d, count in enumerate(counts)):
        return x.map(lambda labels_: labels_.reshape(lifted).expand(shape), shape)
    return run_on_labels(c, node, x)


@rewrites("view", "reshape", "_unsafe_view", "expand", "broadcast_to", "unflatten")
def shrink_shape(s: "Shrinker", node: Node) -> Call:
    """New numbers where a size changed; dynamic sizes and -1 stay as they are."""
    expanding = op_name(node) in ("expand", "broadcast_to")
    changed = s.changed_dims(node)
    target = node.target if expanding else torch.ops.aten.reshape.default
    if op_name(node) == "unflatten":
        if not changed and not s.changed_dims(node.args[0]):
            return Call.of(node)
        return Call(target, (node.args[0], _explicit_sizes(s, node)), {})
    sizes = list(node.args[1])  # type: ignore[arg-type]
    for dim in changed:
        offset = dim - s.rank(node) + len(sizes)
        if isinstance(sizes[offset], Node):
            sizes[offset] = -1
        elif sizes[offset] != -1:
            sizes[offset] = s.new_size(node, dim)
    if not expanding and sizes.count(-1) > 1:
        sizes = _explicit_sizes(s, node)
    if expanding:
        sizes = _keep_expansion(s, node, sizes)
    return Call(target, (node.args[0], sizes), {})


def _explicit_sizes(s: "Shrinker", node: Node) -> list[Any]:
    """All sizes as numbers, with at most one dynamic dimension inferred."""
    dynamic = node.meta.get("dynamic") or (None,) * s.rank(node)
    sizes: list[Any] = []
    for dim in range(s.rank(node)):
        if dynamic[dim] is None:
            sizes.append(s.new_size(node, dim))
        else:
            sizes.append(s.dynamic_size(node, dim) if dynamic[dim] != "derived" else -1)
    return sizes


def _keep_expansion(s: "Shrinker", node: Node, sizes: list[Any]) -> list[Any]:
    """A dimension that keeps its size may stay -1 only where the source has it."""
    source_rank = s.rank(node.args[0])
    return [
        s.new_size(node, d) if size == -1 and d < len(sizes) - source_rank else size
        for d, size in enumerate(sizes)
    ]


@rewrites("repeat")
def shrink_repeat(s: "Shrinker", node: Node) -> Call:
    """Counts that give the new sizes."""
    changed = s.changed_dims(node)
    if not changed:
        return Call.of(node)
    counts = list(node.args[1])  # type: ignore[arg-type]
    source = node.args[0]
    offset = len(counts) - s.rank(source)
    for dim in changed:
        size = s.new_size(source, dim - offset) if dim >= offset else 1
        counts[dim] = s.new_size(node, dim) // max(size, 1)
    return Call(node.target, (source, counts), {})


@rewrites(*FILLED)
def shrink_filled(s: "Shrinker", node: Node) -> Call:
    """New numbers where a size changed."""
    place = 1 if op_name(node).startswith("new_") else 0
    sizes: list[Any] = list(s.argument(node, place, "size"))
    for dim in s.changed_dims(node):
        sizes[dim] = s.new_size(node, dim)
    return Call.of(node).replace(place, "size", sizes)


@rewrites(*FILLED_LIKE)
def shrink_filled_like(s: "Shrinker", node: Node) -> Call:
    """As large as the result has to be, where that is no longer the size of the other value."""
    source: Any = node.args[0]
    if s.new_shape(node) == s.new_shape(source):
        return Call.of(node)
    dynamic = node.meta.get("dynamic") or (None,) * s.rank(node)
    sizes = [
        s.new_size(node, dim)
        if origin is None
        else s.make(f"{node.name}_size_{dim}", torch.ops.aten.sym_size.int, source, dim)
        for dim, origin in enumerate(dynamic)
    ]
    args = (source, sizes, _fill_value(s, node))
    return Call(torch.ops.aten.new_full.default, args, {"dtype": node.meta["val"].dtype})

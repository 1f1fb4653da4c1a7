"""The inverse of views: a value with the part that a view shows replaced."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import Node

from edgeprune.graph.ops import argument, op_name

aten = torch.ops.aten
_END = torch.iinfo(torch.int64).max
# Of a slice with a step, each of which becomes a piece of a concatenation.
_MOST_STEPS = 128

Call = Callable[..., Node]


def can_be_put_back(view: Node) -> bool:
    """Whether `put_back` knows the view, and all its arguments are numbers."""
    if op_name(view) not in _INVERSES or len(view.all_input_nodes) > 1:
        return False
    if op_name(view) == "view":
        return all(isinstance(size, int) for size in view.args[0].meta["val"].shape)  # type: ignore[union-attr]
    if op_name(view) == "contiguous":
        return lies_contiguous(view.args[0]) is True
    return op_name(view) != "slice" or argument(view, 4, "step", 1) == 1 or _steps(view) is not None


def lies_contiguous(node: Any) -> bool | None:
    """Whether a value lies contiguous in memory; None where its sizes are not known."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    if not isinstance(value, Tensor) or not all(isinstance(size, int) for size in value.shape):
        return None
    return value.is_contiguous()


def put_back(graph: fx.Graph, view: Node, whole: Node, part: Node, cause: Node) -> Node:
    """``whole`` with what ``view`` shows of it replaced by ``part``.

    New nodes are put where the graph inserts, and say that they come from ``cause``.
    """

    def call(target: Any, *args: Any) -> Node:
        return _noted(graph.call_function(target, args), cause)

    return _INVERSES[op_name(view)](call, view, whole, part)


def _noted(node: Node, cause: Node) -> Node:
    """A new node with the origin of another and, as export gives it, its own example value."""
    node.meta = {key: value for key, value in cause.meta.items() if key != "val"}
    values = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta.get("val"))
    if all(isinstance(n.meta.get("val"), Tensor) for n in node.all_input_nodes):
        node.meta["val"] = node.target(*values[0], **values[1])  # type: ignore[operator]
    return node


def _steps(view: Node) -> list[int] | None:
    """The positions that a slice with a step shows; None where they are unknown or many."""
    value: Any = view.args[0].meta.get("val")  # type: ignore[union-attr]
    size = value.shape[argument(view, 1, "dim", 0)] if isinstance(value, Tensor) else None
    if not isinstance(size, int):
        return None
    start, end, step = (argument(view, i, n) for i, n in ((2, "start"), (3, "end"), (4, "step")))
    shown = list(range(size))[start:end:step]
    return shown if len(shown) <= _MOST_STEPS else None


def _slice(call: Call, view: Node, whole: Node, part: Node) -> Node:
    dim = argument(view, 1, "dim", 0)
    if argument(view, 4, "step", 1) != 1:
        return _interleaved(call, whole, part, dim, _steps(view) or [])
    return _between(call, whole, part, dim, argument(view, 2, "start"), argument(view, 3, "end"))


def _select(call: Call, view: Node, whole: Node, part: Node) -> Node:
    dim, index = argument(view, 1, "dim"), argument(view, 2, "index")
    end = _END if index == -1 else index + 1
    return _between(call, whole, call(aten.unsqueeze.default, part, dim), dim, index, end)


def _between(
    call: Call, whole: Node, part: Node, dim: int, start: int | None, end: int | None
) -> Node:
    """What of ``whole`` is before ``start``, the part, and what is from ``end`` on."""
    size = whole.meta["val"].shape[dim] if isinstance(whole.meta.get("val"), Tensor) else None
    pieces = [part]
    if start not in (None, 0) and not (isinstance(size, int) and start <= -size):
        pieces.insert(0, call(aten.slice.Tensor, whole, dim, 0, start))
    if end not in (None, _END) and not (isinstance(size, int) and end >= size):
        pieces.append(call(aten.slice.Tensor, whole, dim, end, _END))
    return part if len(pieces) == 1 else call(aten.cat.default, pieces, dim)


def _interleaved(call: Call, whole: Node, part: Node, dim: int, shown: list[int]) -> Node:
    """The entries of ``part`` at these positions, and between them those of ``whole``."""
    if not shown:
        return whole
    pieces, end = [], 0
    for index, position in enumerate(shown):
        if position > end:
            pieces.append(call(aten.slice.Tensor, whole, dim, end, position))
        pieces.append(call(aten.slice.Tensor, part, dim, index, index + 1))
        end = position + 1
    if end < whole.meta["val"].shape[dim]:
        pieces.append(call(aten.slice.Tensor, whole, dim, end, _END))
    return call(aten.cat.default, pieces, dim)


def _transpose(call: Call, view: Node, whole: Node, part: Node) -> Node:
    return call(aten.transpose.int, part, *view.args[1:])


def _permute(call: Call, view: Node, whole: Node, part: Node) -> Node:
    order = [dim % len(view.args[1]) for dim in view.args[1]]  # type: ignore[arg-type,operator,union-attr]
    return call(aten.permute.default, part, [order.index(dim) for dim in range(len(order))])


def _unsqueeze(call: Call, view: Node, whole: Node, part: Node) -> Node:
    return call(aten.squeeze.dim, part, view.args[1])


def _view(call: Call, view: Node, whole: Node, part: Node) -> Node:
    return call(aten.reshape.default, part, list(view.args[0].meta["val"].shape))  # type: ignore[union-attr]


def _same(call: Call, view: Node, whole: Node, part: Node) -> Node:
    return part


_INVERSES: dict[str, Callable[[Call, Node, Node, Node], Node]] = {
    "alias": _same,
    "contiguous": _same,
    "detach": _same,
    "permute": _permute,
    "select": _select,
    "slice": _slice,
    "transpose": _transpose,
    "unsqueeze": _unsqueeze,
    "view": _view,
}

"""Concatenation, stacking and padding."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.labels import strip
from edgeprune.graph.ops import op_name
from edgeprune.graph.rules.registry import Call, labels, rewrites

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling
    from edgeprune.graph.shrinker import Shrinker


@labels("cat", "stack")
def label_joined(c: "Coupling", node: Node) -> Any:
    """The labels joined the same way."""
    shape = c.shape(node)
    dim = c.argument(node, 1, "dim", 0) % len(shape)
    parts = [c.labels(part) for part in node.args[0]]  # type: ignore[union-attr]
    parts = [part for part in parts if part.numel()]
    if op_name(node) == "stack":
        parts = [part.unsqueeze(dim) for part in parts]
    return join(parts, dim).expand(shape)


def join(parts: list[Tensor], dim: int) -> Tensor:
    """Concatenate label tensors; dimensions that are constant in all of them stay size 1."""
    narrow = [strip(part) for part in parts]
    rank = parts[0].dim()
    sizes = [max(part.size(d) for part in narrow) for d in range(rank)]
    wide = [
        slim.expand([part.size(d) if d == dim else sizes[d] for d in range(rank)])
        for slim, part in zip(narrow, parts, strict=True)
    ]
    return torch.cat(wide, dim)


@labels("pad", "constant_pad_nd")
def label_padded(c: "Coupling", node: Node) -> Any:
    """Padding extends a label in space and makes fresh ones beside features."""
    x, pads = c.labels(node.args[0]), list(c.argument(node, 1, "pad"))
    constant = op_name(node) == "constant_pad_nd" or c.argument(node, 2, "mode", "constant") == (
        "constant"
    )
    for index in range(len(pads) // 2):
        dim = x.dim() - 1 - index
        if not constant and any(pads[2 * index : 2 * index + 2]) and c.varies(x, [dim]):
            return None
        for side, amount in enumerate(pads[2 * index : 2 * index + 2]):
            x = _pad_side(c, node, x, dim, side, amount)
    return x


def _pad_side(c: "Coupling", node: Node, x: Tensor, dim: int, side: int, amount: int) -> Tensor:
    if amount < 0:
        return x.narrow(dim, -amount if side == 0 else 0, x.size(dim) + amount)
    if amount == 0:
        return x
    shape = list(x.shape)
    if not c.varies(x, [dim]):
        shape[dim] += amount
        return x.narrow(dim, 0, 1).expand(shape)
    new = c.sets.fresh(amount, f"{node.name}:padding {dim} {side}")
    new = new.reshape([amount if d == dim else 1 for d in range(x.dim())])
    shape[dim] = amount
    new = new.expand(shape)
    return join([new, x] if side == 0 else [x, new], dim).expand(
        [size + x.size(dim) if d == dim else size for d, size in enumerate(shape)]
    )


@rewrites("pad", "constant_pad_nd")
def shrink_pad(s: "Shrinker", node: Node) -> Call:
    """Padding among features loses what was removed there."""
    pads, rank = list(s.argument(node, 1, "pad")), s.rank(node)
    for index in range(len(pads) // 2):
        dim = rank - 1 - index
        kept = s.kept(node, dim)
        if kept is not None and any(pads[2 * index : 2 * index + 2]):
            low = int((kept < pads[2 * index]).sum())
            inside = s.new_size(node.args[0], dim)
            pads[2 * index : 2 * index + 2] = [low, len(kept) - low - inside]
    return Call.of(node).replace(1, "pad", pads)

"""Concatenation, stacking and padding."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.labels import frozen_labels, strip
from edgeprune.graph.ops import op_name
from edgeprune.graph.planes import Plane, Planes
from edgeprune.graph.rules.registry import Call, labels, rewrites

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Value
    from edgeprune.graph.shrinker import Shrinker


@labels("cat", "stack")
def label_joined(c: "Coupling", node: Node) -> "Value":
    """The planes joined the same way."""
    shape = c.shape(node)
    dim = c.argument(node, 1, "dim", 0) % len(shape)
    operands = [c.planes(part) for part in node.args[0]]  # type: ignore[union-attr]
    operands = [x for x in operands if 0 not in x.shape]
    if op_name(node) == "stack":
        operands = [_unsqueezed(x, dim) for x in operands]
    columns = _aligned(c, operands, dim)
    return Planes(
        shape,
        tuple(
            Plane(
                join(
                    [_labels(part, x) for part, x in zip(column, operands, strict=True)], dim
                ).expand(shape),
                all(part.zero for part in column if part is not None),
            )
            for column in columns
        ),
    )


def _unsqueezed(x: Planes, dim: int) -> Planes:
    shape = (*x.shape[:dim], 1, *x.shape[dim:])
    return x.map(lambda labels_: labels_.unsqueeze(dim), shape)


def _labels(part: Plane | None, x: Planes) -> Tensor:
    return frozen_labels(x.shape) if part is None else part.labels


def _aligned(c: "Coupling", operands: list[Planes], dim: int) -> list[list[Plane | None]]:
    """Which planes of the operands continue each other: those along the same dimensions."""
    columns: list[list[Plane | None]] = []
    owners: list[list[int]] = []
    for place, x in enumerate(operands):
        for part in x.parts:
            dims = c.varying(part.labels) or [dim]
            free = (i for i, column in enumerate(columns) if column[place] is None)
            match = next((i for i in free if set(owners[i]) & set(dims)), None)
            if match is None:
                columns.append([None] * len(operands))
                owners.append(dims)
                match = len(columns) - 1
            columns[match][place] = part
    for column, dims in zip(columns, owners, strict=True):
        if dim not in dims and None in column:
            for joined in column:
                if joined is not None:
                    c.freeze(joined.labels, "is joined with data that cannot shrink")
    return columns


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
def label_padded(c: "Coupling", node: Node) -> "Value | None":
    """Padding extends a label in space and makes fresh ones beside features."""
    x, shape, pads = c.planes(node.args[0]), c.shape(node), list(c.argument(node, 1, "pad"))
    name = op_name(node)
    mode = "constant" if name == "constant_pad_nd" else c.argument(node, 2, "mode", "constant")
    padded = [len(shape) - 1 - i for i in range(len(pads) // 2) if any(pads[2 * i : 2 * i + 2])]
    if mode != "constant" and any(c.varies(part.labels, padded) for part in x.parts):
        return None
    value = c.argument(node, 2 if name == "constant_pad_nd" else 3, "value", 0)
    parts = []
    for number, part in enumerate(x.parts):
        labels_ = _padded(c, f"{node.name}:padding {number}", part.labels, pads)
        parts.append(Plane(labels_.expand(shape), part.zero and not (mode == "constant" and value)))
    return Planes(shape, tuple(parts))


def _padded(c: "Coupling", origin: str, x: Tensor, pads: list[int]) -> Tensor:
    for index in range(len(pads) // 2):
        dim = x.dim() - 1 - index
        for side, amount in enumerate(pads[2 * index : 2 * index + 2]):
            x = _pad_side(c, origin, x, dim, side, amount)
    return x


def _pad_side(c: "Coupling", origin: str, x: Tensor, dim: int, side: int, amount: int) -> Tensor:
    if amount < 0:
        return x.narrow(dim, -amount if side == 0 else 0, x.size(dim) + amount)
    if amount == 0:
        return x
    shape = list(x.shape)
    if not c.varies(x, [dim]):
        shape[dim] += amount
        return x.narrow(dim, 0, 1).expand(shape)
    new = c.sets.fresh(amount, f"{origin} {dim} {side}")
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

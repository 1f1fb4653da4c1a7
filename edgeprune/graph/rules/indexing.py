"""Indexing: by constants the labels are indexed too; by data the indexed dimension is tied."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.ops import op_name
from edgeprune.graph.planes import Plane, Planes
from edgeprune.graph.rules.elementwise import tie_broadcast
from edgeprune.graph.rules.registry import Call, labels, rewrites

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Value
    from edgeprune.graph.shrinker import Shrinker

_BY_A_MASK = "positions are chosen by a mask"


@labels("index_select")
def label_index_select(c: "Coupling", node: Node) -> "Value":
    """One index vector; what data may choose stays."""
    x, shape = c.planes(node.args[0]), c.shape(node)
    dim = c.argument(node, 1) % len(x.shape)
    index = c.constant(node.args[2])
    if index is not None:
        return x.map(lambda labels_: labels_.index_select(dim, index), shape)
    kept = c.alike(x, [dim], "indexed by data")
    return Planes(shape, tuple(part.map(lambda labels_: labels_.expand(shape)) for part in kept))


@labels("index")
def label_index(c: "Coupling", node: Node) -> "Value | None":
    """Index tensors over some dimensions."""
    x, shape = c.planes(node.args[0]), c.shape(node)
    indices: list[Any] = list(node.args[1])  # type: ignore[arg-type]
    if any(index is not None and index.meta["val"].dtype == torch.bool for index in indices):
        return _masked(c, x, indices, shape)
    dims = [d for d, index in enumerate(indices) if index is not None]
    experts = c.experts(node)
    if experts is not None:
        return _read_by_number(c, node, experts)
    constants = [c.constant(indices[d]) for d in dims]
    chosen = constants[0] if len(dims) == 1 else None
    if chosen is not None and chosen.dim() == 1 and chosen.dtype == torch.int64:
        vector = chosen % x.shape[dims[0]]
        return x.map(lambda labels_: labels_.index_select(dims[0], vector), shape)
    reason = "indexed by data" if None in constants else "indexed in several dimensions"
    picks: list[Any] = [slice(None) if index is None else _origin(index) for index in indices]
    kept = c.alike(x, dims, reason)
    return Planes(
        shape,
        tuple(part.map(lambda labels_: _picked(labels_, dims, x.shape, picks)) for part in kept),
    )


def _masked(c: "Coupling", x: Planes, indices: list[Any], shape: tuple[int, ...]) -> Planes | None:
    """Entries where a mask over neighbouring dimensions holds, side by side in one."""
    if indices.count(None) != len(indices) - 1:
        return None
    start = next(d for d, index in enumerate(indices) if index is not None)
    rank = len(c.shape(indices[start]))
    kept = c.alike(x, list(range(start, start + rank)), "chosen by a mask")

    def joined(labels_: Tensor) -> Tensor:
        one = labels_.flatten(start, start + rank - 1) if rank else labels_.unsqueeze(start)
        return one.expand(shape)

    return Planes(shape, tuple(part.map(joined) for part in kept))


def _read_by_number(c: "Coupling", node: Node, experts: Tensor) -> Planes:
    """What the chosen experts have in a stacked tensor."""
    stacked: Any = node.args[0]
    c.union(c.axes(stacked)[0], experts)
    x, shape = c.planes(stacked), c.shape(node)
    parts = [part for part in x.parts if not c.varies(part.labels, [0])]
    extra = len(shape) - len(x.shape)

    def read(labels_: Tensor) -> Tensor:
        first = labels_.narrow(0, 0, 1)
        return first.reshape((1,) * (extra + 1) + tuple(first.shape[1:])).expand(shape)

    return Planes(shape, tuple(part.map(read) for part in parts))


def _picked(first: Tensor, dims: list[int], shape: tuple[int, ...], picks: list[Any]) -> Tensor:
    """Labels that are constant along the indexed dimensions, in the result's shape."""
    wide = first.expand([1 if d in dims else size for d, size in enumerate(shape)])
    return wide[tuple(picks)] if dims else wide


def _origin(index: Node) -> Tensor:
    """Index tensor of the same shape that reads position 0."""
    shape = index.meta["val"].shape
    return torch.zeros((), dtype=torch.int64).expand(shape)


@labels("masked_scatter")
def label_masked_scatter(c: "Coupling", node: Node) -> "Value | None":
    """Rows of another value where a mask holds, if it holds for whole rows: features are tied."""
    into, mask, rows = (c.planes(node.args[i]) for i in range(3))
    shape, last = c.shape(node), len(into.shape) - 1
    whole = into.shape == shape and last >= 0 and rows.shape[-1:] == shape[-1:]
    if not (whole and _holds_for_rows(c, node.args[1])):
        return None
    for planes in (into, mask, rows):
        _keep_positions(c, planes, len(planes.shape) - 1)
    met = _met_by_rows(c, into, rows, last, shape)
    return tie_broadcast(c, met, mask, shape, "first")


@labels("index_put")
def label_index_put(c: "Coupling", node: Node) -> "Value | None":
    """Values where a mask over the first dimensions holds: features behind these are tied."""
    into, values, shape = c.planes(node.args[0]), c.planes(node.args[2]), c.shape(node)
    indices: Any = node.args[1]
    if len(indices) != 1 or indices[0].meta["val"].dtype != torch.bool:
        return None
    first = len(c.shape(indices[0]))
    if not first or len(values.shape) != len(shape) - first + 1:
        return None
    _keep_positions(c, into, first)
    return _met_by_rows(c, into, values, first, shape)


def _keep_positions(c: "Coupling", x: Planes, first: int) -> None:
    """Freeze what varies along the first dimensions, whose positions a mask chooses."""
    for part in x.parts:
        if c.varies(part.labels, range(first)):
            c.freeze(part.labels, _BY_A_MASK)


def _met_by_rows(
    c: "Coupling", into: Planes, rows: Planes, first: int, shape: tuple[int, ...]
) -> Planes:
    """A value some of whose rows, behind its first dimensions, are others: features are tied."""
    before = len(rows.shape) - (len(shape) - first)
    kept = c.alike(rows, range(before), _BY_A_MASK)
    one = (1,) * first + rows.shape[before:]
    row = Planes(one, tuple(part.map(lambda labels_: labels_.reshape(one)) for part in kept))
    return tie_broadcast(c, into, row, shape, "all")


def _holds_for_rows(c: "Coupling", mask: Any) -> bool:
    """Whether a mask is the same all along its last dimension."""
    while op_name(mask) in ("to", "clone", "contiguous", "alias"):
        mask = mask.args[0]
    copied = op_name(mask) in ("expand", "expand_as", "broadcast_to")
    return c.shape(mask.args[0] if copied else mask)[-1:] == (1,)


@labels("gather")
def label_gather(c: "Coupling", node: Node) -> "Value":
    """Tied over the gathered dimension; other dimensions may shrink with a broadcast index."""
    x, shape = c.planes(node.args[0]), c.shape(node)
    dim = c.argument(node, 1) % len(x.shape)
    index: Any = node.args[2]
    copied = op_name(index) in ("expand", "expand_as", "repeat") and len(index.users) == 1
    source = c.shape(index.args[0]) if copied else ()
    source = (1,) * (len(x.shape) - len(source)) + tuple(source)
    parts = []
    for part in c.alike(x, [dim], "gathered by data"):
        tied = part.labels.expand(shape)
        others = [d for d in range(len(shape)) if c.varies(tied, [d])]
        if others and not (copied and all(source[d] == 1 for d in others)):
            c.freeze(part.labels, "gathered by data")
        parts.append(Plane(tied, part.zero))
    result = Planes(shape, tuple(parts))
    if copied:
        c.values[index] = result
    return result


@rewrites("index_select")
def shrink_index_select(s: "Shrinker", node: Node) -> Call:
    """Indices counted in survivors."""
    source, dim = node.args[0], s.argument(node, 1)
    if s.kept(source, dim) is None:
        return Call.of(node)
    return Call(node.target, (source, dim, s.survivors(node, source, dim)), {})


@rewrites("index")
def shrink_index(s: "Shrinker", node: Node) -> Call:
    """The same for a single index vector; experts are renumbered where they are chosen."""
    source, indices = node.args[0], node.args[1]
    dims = [d for d, index in enumerate(indices) if index is not None]  # type: ignore[arg-type]
    constant = len(dims) == 1 and indices[dims[0]] in s.constants  # type: ignore[index,operator]
    if not constant or s.kept(source, dims[0]) is None:
        return Call.of(node)
    index = s.survivors(node, source, dims[0])
    return Call(torch.ops.aten.index_select.default, (source, dims[0], index), {})

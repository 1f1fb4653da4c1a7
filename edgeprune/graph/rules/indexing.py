"""Indexing: by constants the labels are indexed too; by data the indexed dimension is tied."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.ops import op_name
from edgeprune.graph.planes import Plane, Planes
from edgeprune.graph.rules.registry import Call, labels, rewrites

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Value
    from edgeprune.graph.shrinker import Shrinker


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
def label_index(c: "Coupling", node: Node) -> "Value":
    """Index tensors over some dimensions."""
    x, shape = c.planes(node.args[0]), c.shape(node)
    indices: list[Any] = list(node.args[1])  # type: ignore[arg-type]
    dims = [d for d, index in enumerate(indices) if index is not None]
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


def _picked(first: Tensor, dims: list[int], shape: tuple[int, ...], picks: list[Any]) -> Tensor:
    """Labels that are constant along the indexed dimensions, in the result's shape."""
    wide = first.expand([1 if d in dims else size for d, size in enumerate(shape)])
    return wide[tuple(picks)] if dims else wide


def _origin(index: Node) -> Tensor:
    """Index tensor of the same shape that reads position 0."""
    shape = index.meta["val"].shape
    return torch.zeros((), dtype=torch.int64).expand(shape)


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
    """The same for a single index vector."""
    source, indices = node.args[0], node.args[1]
    dims = [d for d, index in enumerate(indices) if index is not None]  # type: ignore[arg-type]
    if len(dims) != 1 or s.kept(source, dims[0]) is None:
        return Call.of(node)
    index = s.survivors(node, source, dims[0])
    return Call(torch.ops.aten.index_select.default, (source, dims[0], index), {})

"""Indexing: by constants the labels are indexed too; by data the indexed dimension is tied."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.ops import op_name
from edgeprune.graph.rules.registry import Call, labels, rewrites

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling
    from edgeprune.graph.shrinker import Shrinker


@labels("index_select")
def label_index_select(c: "Coupling", node: Node) -> Any:
    """One index vector."""
    x: Tensor = c.labels(node.args[0])
    dim = c.argument(node, 1) % x.dim()
    index = c.constant(node.args[2])
    if index is not None and c.varies(x, [dim]):
        return x.index_select(dim, index)
    return c.tie(x, [dim]).expand(c.shape(node))


@labels("index")
def label_index(c: "Coupling", node: Node) -> Any:
    """Index tensors over some dimensions."""
    x: Tensor = c.labels(node.args[0])
    indices: list[Any] = list(node.args[1])  # type: ignore[arg-type]
    dims = [d for d, index in enumerate(indices) if index is not None]
    constants = [c.constant(indices[d]) for d in dims]
    if c.varies(x, dims):
        single = len(dims) == 1 and constants[0] is not None and constants[0].dim() == 1
        if single and constants[0] is not None and constants[0].dtype == torch.int64:
            return x.index_select(dims[0], constants[0] % x.size(dims[0]))
        c.freeze(x, "indexed by data" if None in constants else "indexed in several dimensions")
    rest = c.tie(x, dims) if c.resolving or not c.varies(x, dims) else c.sets.classes(x)
    for dim in dims:
        rest = rest.narrow(dim, 0, 1)
    wide = rest.expand([1 if d in dims else x.size(d) for d in range(x.dim())])
    picks: list[Any] = [slice(None) if index is None else _origin(index) for index in indices]
    return wide[tuple(picks)] if dims else x


def _origin(index: Node) -> Tensor:
    """Index tensor of the same shape that reads position 0."""
    shape = index.meta["val"].shape
    return torch.zeros((), dtype=torch.int64).expand(shape)


@labels("gather")
def label_gather(c: "Coupling", node: Node) -> Any:
    """Tied over the gathered dimension; other dimensions may shrink with a broadcast index."""
    x: Tensor = c.labels(node.args[0])
    dim = c.argument(node, 1) % x.dim()
    index: Any = node.args[2]
    tied = c.tie(x, [dim])
    copied = op_name(index) in ("expand", "expand_as", "repeat")
    source = c.shape(index.args[0]) if copied else ()
    source = (1,) * (x.dim() - len(source)) + tuple(source)
    others = [d for d in range(x.dim()) if d != dim and c.varies(tied, [d])]
    if not others:
        return tied.expand(c.shape(node))
    if copied and all(source[d] == 1 for d in others) and len(index.users) == 1:
        result = tied.expand(c.shape(node))
        c.values[index] = result
        return result
    c.freeze(x, "gathered by data")
    return c.sets.classes(tied).expand(c.shape(node))


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

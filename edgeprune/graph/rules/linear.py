"""Products with a weight matrix: rows make features, columns consume them."""

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.fx import Node

from edgeprune.graph.rules.contraction import label_product
from edgeprune.graph.rules.registry import labels

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Weight


@labels("linear")
def label_linear(c: "Coupling", node: Node) -> Any:
    """``x W^T + b``."""
    weight = c.weight(node.args[1])
    if weight is None or len(weight.dims) != 2:
        return None
    bias = c.argument(node, 2, "bias")
    return apply_matrix(c, node, c.labels(node.args[0]), weight, (0, 1), bias)


@labels("addmm")
def label_addmm(c: "Coupling", node: Node) -> Any:
    """``b + x W``."""
    weight = c.weight(node.args[2])
    if weight is None:
        return None
    bias = node.args[0]
    if isinstance(bias, Node) and len(c.shape(bias)) != 1:
        return None
    return apply_matrix(c, node, c.labels(node.args[1]), weight, (1, 0), bias)


@labels("matmul", "mm")
def label_matmul(c: "Coupling", node: Node) -> Any:
    """A parameter on either side is a weight; otherwise a product of two values."""
    left, right = node.args[0], node.args[1]
    weight = _matrix(c, right)
    if weight is not None:
        return apply_matrix(c, node, c.labels(left), weight, (1, 0), None)
    weight = _matrix(c, left)
    if weight is not None and isinstance(right, Node) and len(c.shape(right)) >= 2:
        x = c.labels(right).transpose(-1, -2)
        shape = c.shape(node)
        shape = (*shape[:-2], shape[-1], shape[-2])
        return apply_matrix(c, node, x, weight, (0, 1), None, shape).transpose(-1, -2)
    return label_product(c, node)


def _matrix(c: "Coupling", value: Any) -> "Weight | None":
    from edgeprune.graph.coupling import Weight

    if not (c.is_parameter(value) or isinstance(c.values.get(value), Weight)):
        return None
    weight = c.weight(value)
    return weight if weight is not None and len(weight.dims) == 2 else None


def apply_matrix(
    c: "Coupling",
    node: Node,
    x: Tensor,
    weight: "Weight",
    dims: tuple[int, int],
    bias: Any,
    shape: tuple[int, ...] | None = None,
) -> Tensor:
    """Labels of ``x`` times a weight whose output and input dimensions are ``dims``."""
    shape = shape or c.shape(node)
    rows, columns = weight.dims[dims[0]], weight.dims[dims[1]]
    positions = list(range(x.dim() - 1))
    c.use(weight, dims[0], dims[1], node)
    c.use_vector(bias, node)
    if x.size(-1) > 1 and c.varies(x, positions) and not c.varies(x, [x.dim() - 1]):
        reason = "weights that mix positions"
        c.freeze(rows, reason)
        c.freeze(columns, reason)
        if bias is not None:
            c.freeze(c.labels(bias), reason)
        return c.sets.classes(x).narrow(-1, 0, 1).expand(shape)
    vector = c.tie(x, positions).reshape(-1)
    c.union(vector.expand(len(columns)), columns, "consumes data that cannot shrink")
    if bias is not None:
        c.union(c.labels(bias).reshape(-1).expand(len(rows)), rows)
    return rows.expand(shape)


@labels("grouped_mm_fallback", "_grouped_mm")
def label_experts(c: "Coupling", node: Node) -> Any:
    """Stacked expert weights ``[experts, in, out]``: in and out may shrink, experts stay."""
    weight = c.weight(node.args[1])
    if weight is None or len(weight.dims) != 3:
        return None
    x = c.labels(node.args[0])
    c.freeze(weight.dims[0], "experts are chosen at run time")
    c.use(weight, 2, 1, node)
    vector = c.tie(x, list(range(x.dim() - 1))).reshape(-1)
    c.union(vector.expand(len(weight.dims[1])), weight.dims[1])
    return weight.dims[2].expand(c.shape(node))


@labels("embedding")
def label_embedding(c: "Coupling", node: Node) -> Any:
    """Looks rows up: the columns are features, the rows stay."""
    table = node.args[0]
    weight = c.weight(table)
    if weight is not None:
        c.freeze(weight.dims[0], "rows are chosen at run time")
        c.use(weight, 1, None, node)
        return weight.dims[1].expand(c.shape(node))
    entries = c.labels(table)
    index = c.constant(node.args[1])
    if index is not None and not c.varies(entries, [0]):
        return entries[index]
    return c.tie(entries, [0]).expand(c.shape(node))


@labels("bilinear")
def label_bilinear(c: "Coupling", node: Node) -> Any:
    """``x1 W x2``: both inputs are consumed."""
    weight = c.weight(node.args[2])
    if weight is None:
        return None
    bias = c.argument(node, 3, "bias")
    c.use(weight, 0, 1, node)
    for value, dim in ((node.args[0], 1), (node.args[1], 2)):
        x = c.labels(value)
        vector = c.tie(x, list(range(x.dim() - 1))).reshape(-1)
        c.union(vector.expand(len(weight.dims[dim])), weight.dims[dim])
    if bias is not None:
        c.union(c.labels(bias), weight.dims[0])
    return weight.dims[0].expand(c.shape(node))

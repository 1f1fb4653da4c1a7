"""Products with a weight matrix: rows make features, columns consume them."""

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.fx import Node

from edgeprune.graph.expert_choice import GROUPED
from edgeprune.graph.planes import Plane, Planes
from edgeprune.graph.rules.consumption import consumed_and_passing
from edgeprune.graph.rules.contraction import label_product
from edgeprune.graph.rules.registry import labels

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Value


@labels("linear")
def label_linear(c: "Coupling", node: Node) -> "Value | None":
    """``x W^T + b``."""
    if len(c.shape(node.args[1])) != 2:  # type: ignore[arg-type]
        return None
    rows, columns = c.axes(node.args[1])
    return apply_matrix(c, node, c.planes(node.args[0]), rows, columns, c.argument(node, 2, "bias"))


@labels("addmm")
def label_addmm(c: "Coupling", node: Node) -> "Value | None":
    """``b + x W``."""
    bias = node.args[0]
    if node.args[2] not in c.stored or not isinstance(bias, Node) or len(c.shape(bias)) != 1:
        return None
    columns, rows = c.axes(node.args[2])
    return apply_matrix(c, node, c.planes(node.args[1]), rows, columns, bias)


@labels("matmul", "mm")
def label_matmul(c: "Coupling", node: Node) -> "Value | None":
    """A weight on the right is applied; otherwise a product of two values."""
    left, right = node.args[0], node.args[1]
    if right in c.stored and left not in c.stored and len(c.shape(right)) == 2:  # type: ignore[arg-type]
        columns, rows = c.axes(right)
        return apply_matrix(c, node, c.planes(left), rows, columns, None)
    return label_product(c, node)


def apply_matrix(
    c: "Coupling", node: Node, x: Planes, rows: Tensor, columns: Tensor, bias: Any
) -> Planes:
    """Planes of ``x`` times a weight with these labels; positions pass."""
    shape = c.shape(node)
    c.use(rows, "output", node)
    c.use(columns, "input", node)
    features, passing = consumed_and_passing(c, x, -1)
    c.union(features, columns, "consumes data that cannot shrink")
    if isinstance(bias, Node):
        c.use_vector(bias, node)
        c.union(c.axes(bias)[-1], rows)
    return Planes(shape, (Plane(rows.expand(shape)), *_passed(passing, shape, bias)))


def _passed(passing: list[Plane], shape: tuple[int, ...], bias: Any) -> list[Plane]:
    return [
        Plane(part.labels.narrow(-1, 0, 1).expand(shape), part.zero and not isinstance(bias, Node))
        for part in passing
    ]


@labels(*GROUPED)
def label_experts(c: "Coupling", node: Node) -> "Value | None":
    """Stacked expert weights ``[experts, in, out]``: experts stay if who chooses them does."""
    if node.args[1] not in c.stored or len(c.shape(node.args[1])) != 3:  # type: ignore[arg-type]
        return None
    experts, columns, rows = c.axes(node.args[1])
    chosen = c.experts(node)
    if chosen is None:
        c.freeze(experts, "experts are chosen at run time")
    else:
        c.union(experts, chosen)
    return apply_matrix(c, node, c.planes(node.args[0]), rows, columns, None)


@labels("embedding")
def label_embedding(c: "Coupling", node: Node) -> "Value":
    """Looks rows up: the columns are features, the rows stay unless constants choose them."""
    table, shape = node.args[0], c.shape(node)
    index = c.constant(node.args[1])
    parts = []
    for part in c.planes(table).parts:
        if not c.varies(part.labels, [0]):
            c.use(part.labels.narrow(0, 0, 1).reshape(-1), "output", node)
            parts.append(part.map(lambda x: x.narrow(0, 0, 1).reshape(-1).expand(shape)))
        elif index is not None:
            parts.append(part.map(lambda x: x[index]))
        else:
            c.freeze(part.labels, "rows are chosen at run time")
    return Planes(shape, tuple(parts))


@labels("embedding_bag")
def label_embedding_bag(c: "Coupling", node: Node) -> "Value | None":
    """Rows that are looked up and put together; the other results are bookkeeping."""
    entries, columns = c.axes(node.args[0])
    c.freeze(entries, "rows are chosen at run time")
    c.use(columns, "output", node)
    values = node.meta["val"]
    first = tuple(values[0].shape)
    rest = (Planes(tuple(value.shape)) for value in values[1:])
    return (Planes(first, (Plane(columns.expand(first)),)), *rest)


@labels("bilinear")
def label_bilinear(c: "Coupling", node: Node) -> "Value":
    """``x1 W x2``: both inputs are consumed."""
    rows, first, second = c.axes(node.args[2])
    bias, shape = c.argument(node, 3, "bias"), c.shape(node)
    c.use(rows, "output", node)
    c.use(first, "input", node)
    for value, columns in ((node.args[0], first), (node.args[1], second)):
        features, _ = consumed_and_passing(c, c.planes(value), -1, may_pass=False)
        c.feature(columns)
        c.union(features, columns, "consumes data that cannot shrink")
    if isinstance(bias, Node):
        c.use_vector(bias, node)
        c.union(c.axes(bias)[0], rows)
    return Planes(shape, (Plane(rows.expand(shape)),))

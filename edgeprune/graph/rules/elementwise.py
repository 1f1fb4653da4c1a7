"""Operators that compute entry by entry: operands are tied, under broadcasting."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.labels import FEATURE, narrowed, strip
from edgeprune.graph.ops import op_name
from edgeprune.graph.planes import Plane, Planes
from edgeprune.graph.rules.registry import labels

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Value

_ZERO_AT_ZERO = (
    "contiguous", "clone", "to", "detach", "lift_fresh_copy", "lift_fresh", "relu", "gelu", "silu",
    "tanh", "hardswish", "hardtanh", "relu6", "elu", "leaky_relu", "sqrt", "neg", "abs", "sin",
    "square", "sign", "ceil", "floor", "round", "trunc", "frac", "mish", "selu", "erf", "log1p",
    "expm1", "tan", "atan", "asin", "sinh", "celu", "softsign", "nan_to_num", "type_as",
    "_to_copy", "float", "zero", "hardshrink", "softshrink", "tanhshrink", "positive", "alias",
    "dropout", "feature_dropout",
)  # fmt: skip
_OTHER_AT_ZERO = (
    "sigmoid", "hardsigmoid", "softplus", "exp", "log", "log2", "log10", "rsqrt", "cos",
    "reciprocal", "clamp", "clamp_min", "clamp_max", "erfc", "bitwise_not", "logical_not", "logit",
    "acos", "cosh", "isnan", "isinf", "isfinite", "log_sigmoid", "logsigmoid", "threshold", "exp2",
)  # fmt: skip
UNARY = _ZERO_AT_ZERO + _OTHER_AT_ZERO

Zero = Literal["any", "all", "first", "never"]
"""When an entry of the result is zero: when one operand is, all are, the first is."""

_BINARY: dict[str, Zero] = {
    **dict.fromkeys(("mul", "__and__", "logical_and", "bitwise_and"), "any"),
    **dict.fromkeys(
        ("add", "sub", "rsub", "maximum", "minimum", "fmax", "fmin", "hypot", "__or__",
         "logical_or", "bitwise_or"), "all"),
    **dict.fromkeys(
        ("div", "true_divide", "floor_divide", "remainder", "fmod", "atan2", "xlogy"), "first"),
    **dict.fromkeys(
        ("pow", "ge", "gt", "le", "lt", "eq", "ne", "where", "masked_fill", "__xor__",
         "logical_xor", "bitwise_xor", "copy", "fill", "lerp", "addcmul", "addcdiv"), "never"),
}  # fmt: skip
BINARY = tuple(_BINARY)


@labels(*UNARY)
def label_unary(c: "Coupling", node: Node) -> "Value":
    """The planes of the operand."""
    planes = c.planes(node.args[0])
    return planes if op_name(node) in _ZERO_AT_ZERO else planes.without_zeros()


@labels(*BINARY)
def label_binary(c: "Coupling", node: Node) -> "Value | None":
    """All tensor operands tied together."""
    operands = [c.planes(a) for a in node.args if isinstance(a, Node) and _is_tensor(a)]
    if not operands or not _is_tensor(node):
        return None  # numbers, which dynamic shapes are computed from, and lists
    zero = _zero_rule(node, len(operands))
    result = operands[0]
    for operand in operands[1:]:
        shape = torch.broadcast_shapes(result.shape, operand.shape)  # type: ignore[no-untyped-call]
        result = tie_broadcast(c, result, operand, tuple(shape), zero)
    if zero == "never":
        result = result.without_zeros()
    shape = c.shape(node)
    return result.map(lambda x: x.expand(shape), shape)


def _zero_rule(node: Node, operands: int) -> Zero:
    """A power of a number keeps zeros, a sum with a number does not."""
    name = op_name(node)
    zero = _BINARY[name]
    numbers = [a for a in node.args if isinstance(a, int | float) and not isinstance(a, bool)]
    if name == "pow" and isinstance(node.args[0], Node) and numbers and numbers[0] > 0:
        return "first"
    if zero == "all" and any(numbers) and operands == 1:
        return "never"
    if zero == "first" and not isinstance(node.args[0], Node):
        return "never"
    return zero


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def tie_broadcast(
    c: "Coupling", a: Planes, b: Planes, shape: Sequence[int], zero: Zero = "all"
) -> Planes:
    """Tie two operands of an element-wise operator; planes of the result, of this shape.

    Planes that vary along a common dimension are tied; others pass where the other operand is
    broadcast, and are frozen where it has entries that cannot go.
    """
    shape = tuple(shape)
    a, b = _lift(a, shape), _lift(b, shape)
    met: set[int] = set()
    result: list[Plane] = []
    for p in _features_first(c, a.parts):
        for q in _features_first(c, b.parts):
            if set(c.varying(p.labels)) & set(c.varying(q.labels)):
                met |= {id(p), id(q)}
                labels_ = _pair(c, _Side(p.labels, a.shape), _Side(q.labels, b.shape), shape)
                result.append(Plane(labels_, _stays_zero(zero, p.zero, q.zero)))
    for p in a.parts:
        if id(p) not in met and _passes(c, p.labels, a.shape, b, shape):
            result.append(replace(p, zero=_stays_zero(zero, p.zero, False)))
    for q in b.parts:
        if id(q) not in met and _passes(c, q.labels, b.shape, a, shape):
            result.append(replace(q, zero=_stays_zero(zero, False, q.zero)))
    return Planes(shape, tuple(part.map(lambda x: x.expand(shape)) for part in result))


def _features_first(c: "Coupling", parts: Sequence[Plane]) -> list[Plane]:
    return sorted(parts, key=lambda part: -c.level(part.labels))


def _stays_zero(zero: Zero, first: bool, second: bool) -> bool:
    known = {"any": first or second, "all": first and second, "first": first, "never": False}
    return known[zero]


def _lift(planes: Planes, shape: tuple[int, ...]) -> Planes:
    """With as many dimensions as the result; labels are expanded, the shape keeps its ones."""
    rank = len(shape) - len(planes.shape)
    lifted = (1,) * rank + planes.shape
    parts = tuple(part.map(lambda x: x.reshape(lifted)) for part in planes.parts)
    return Planes(lifted, parts)


class _Side:
    """Labels of one operand, and where it is broadcast or goes along with what it meets."""

    def __init__(self, labels_: Tensor, shape: tuple[int, ...]) -> None:
        self.labels = labels_
        self.shape = shape

    def constant_dims(self, c: "Coupling", shape: tuple[int, ...]) -> list[int]:
        """Dimensions over which this side serves all entries of the other."""
        plain = c.is_plain(self.labels)
        return [
            d
            for d, size in enumerate(shape)
            if size > 1 and (self.shape[d] == 1 or (plain and self.labels.stride(d) == 0))
        ]


def _pair(c: "Coupling", a: _Side, b: _Side, shape: tuple[int, ...]) -> Tensor:
    """Tie two planes that vary along a common dimension."""
    over_b = [d for d in c.varying(b.labels) if d in a.constant_dims(c, shape)]
    over_a = [d for d in c.varying(a.labels) if d in b.constant_dims(c, shape)]
    if over_a and over_b:
        return _outer_product(c, a.labels, b.labels)
    if over_b:
        return _broadcast_over(c, a, b, over_b)
    if over_a:
        return _broadcast_over(c, b, a, over_a)
    c.union(strip(a.labels), strip(b.labels))
    return _slimmer(c, a, b)


def _slimmer(c: "Coupling", a: _Side, b: _Side) -> Tensor:
    """Either of two tied label tensors: a parameter's own before data's, then the smaller."""
    first = (c.sets.own_level(strip(a.labels).numpy()), -strip(a.labels).numel())
    second = (c.sets.own_level(strip(b.labels).numpy()), -strip(b.labels).numel())
    return a.labels if first >= second else b.labels


def _outer_product(c: "Coupling", a: Tensor, b: Tensor) -> Tensor:
    """Both are broadcast over the other's labels and share some: one of them cannot be pruned.

    That is the plainer one, or the one with fewer labels.
    """
    level_a, level_b = c.level(a), c.level(b)
    if level_a == level_b:
        level_a, level_b = c.count(a), c.count(b)
    loser, winner = (a, b) if level_a <= level_b else (b, a)
    c.freeze(loser, "meets other features in an outer product")
    return winner


def _broadcast_over(c: "Coupling", a: _Side, b: _Side, dims: list[int]) -> Tensor:
    """``a`` is the same over ``dims``, along which the labels of ``b`` vary."""
    data = c.is_plain(b.labels) and not c.is_plain(a.labels)
    if data or c.resolving:
        c.tie(b.labels, dims)
        c.union(strip(a.labels), strip(narrowed(b.labels, dims)))
    return b.labels


def _passes(
    c: "Coupling", labels_: Tensor, own: tuple[int, ...], other: Planes, shape: tuple[int, ...]
) -> bool:
    """Whether a plane that met no other is one of the result; else it is frozen, or will be."""
    dims = c.varying(labels_)
    if not dims:
        return _whole_passes(c, labels_, own, other, shape)
    broadcast = [d for d in dims if other.shape[d] == 1]
    if len(broadcast) == len(dims):
        return True
    owner = next((q.labels for q in other.parts if _owns(c, q.labels)), None)
    if owner is not None:
        c.union(labels_, owner)
        return True
    if broadcast and not c.resolving:
        return True
    if c.level(labels_) < FEATURE:
        c.freeze(labels_, "meets data that cannot shrink")
        return False
    c.freeze_now(labels_, "meets data that cannot shrink")
    return False


def _owns(c: "Coupling", labels_: Tensor) -> bool:
    """Whether one unit of a layer owns the whole operand."""
    return not c.varying(labels_) and c.level(labels_) == FEATURE


def _whole_passes(
    c: "Coupling", labels_: Tensor, own: tuple[int, ...], other: Planes, shape: tuple[int, ...]
) -> bool:
    """The same for a unit that owns the whole operand."""
    if c.level(labels_) < FEATURE:
        c.freeze(labels_, "one entry of data serves many")
        return False
    if any(own[d] == 1 < size for d, size in enumerate(shape)):
        c.freeze(labels_, "one number serves many features")
        return False
    if all(size == 1 for size in other.shape):
        return True
    met = next((q.labels for q in other.parts), None)
    if met is None:
        c.freeze_now(labels_, "meets data that cannot shrink")
        return False
    c.union(strip(labels_), strip(met))
    return True


@labels("glu")
def label_glu(c: "Coupling", node: Node) -> "Value":
    """The two halves tied."""
    x, shape = c.planes(node.args[0]), c.shape(node)
    dim = c.argument(node, 1, "dim", -1)
    first = x.map(lambda labels_: labels_.chunk(2, dim)[0], shape)
    second = x.map(lambda labels_: labels_.chunk(2, dim)[1], shape)
    return tie_broadcast(c, first, second, shape, "first")


@labels("softmax", "log_softmax", "cumsum", "logcumsumexp", "cumprod")
def label_along(c: "Coupling", node: Node) -> Any:
    """Operators whose result depends on everything along one dimension.

    Experts that are never chosen have no part in a softmax, and add nothing to a running count.
    """
    x, name = c.planes(node.args[0]), op_name(node)
    dim = c.argument(node, 1, "dim") % len(x.shape)
    if c.experts(node) is None:
        freeze_along(c, x, [dim], f"{name} runs over features")
    return x if name in ("cumsum", "cumprod") else x.without_zeros()


def freeze_along(c: "Coupling", x: Planes, dims: Sequence[int], reason: str) -> None:
    """Freeze the planes that vary along some dimensions."""
    for part in x.parts:
        if c.varies(part.labels, dims):
            c.freeze(part.labels, reason)

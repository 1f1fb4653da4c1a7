"""Operators that compute entry by entry: operands are tied, under broadcasting."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.rules.registry import labels

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling

UNARY = (
    "contiguous", "clone", "to", "detach", "lift_fresh_copy", "lift_fresh", "relu", "gelu", "silu",
    "sigmoid", "tanh", "hardswish", "hardsigmoid", "hardtanh", "relu6", "elu", "leaky_relu",
    "softplus", "exp", "log", "log2", "log10", "sqrt", "rsqrt", "neg", "abs", "sin", "cos",
    "square", "reciprocal", "sign", "ceil", "floor", "round", "trunc", "frac", "clamp",
    "clamp_min", "clamp_max", "mish", "selu", "erf", "erfc", "bitwise_not", "logical_not", "logit",
    "log1p", "expm1", "tan", "atan", "asin", "acos", "sinh", "cosh", "celu", "softsign", "isnan",
    "isinf", "isfinite", "log_sigmoid", "logsigmoid", "nan_to_num", "type_as", "_to_copy", "float",
    "zero", "threshold", "hardshrink", "softshrink", "tanhshrink", "exp2", "positive", "alias",
    "dropout", "feature_dropout",
)  # fmt: skip

BINARY = (
    "add", "sub", "mul", "div", "pow", "maximum", "minimum", "rsub", "ge", "gt", "le", "lt", "eq",
    "ne", "where", "masked_fill", "__and__", "__or__", "__xor__", "logical_and", "logical_or",
    "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor", "floor_divide", "remainder",
    "atan2", "fmod", "fmax", "fmin", "copy", "fill", "lerp", "addcmul", "addcdiv", "xlogy",
    "true_divide", "hypot",
)  # fmt: skip


@labels(*UNARY)
def label_unary(c: "Coupling", node: Node) -> Any:
    """The labels of the operand; a weight that is cast or copied stays a weight."""
    from edgeprune.graph.rules.movement import weight_behind

    weight = weight_behind(c, node)
    return weight if weight is not None else c.labels(node.args[0])


@labels(*BINARY)
def label_binary(c: "Coupling", node: Node) -> Any:
    """All tensor operands tied together."""
    from edgeprune.graph.rules.movement import scaled_weight

    weight = scaled_weight(c, node)
    if weight is not None:
        return weight
    operands = [c.labels(a) for a in node.args if isinstance(a, Node) and _is_tensor(a)]
    if not operands:
        return None  # numbers, which dynamic shapes are computed from
    result = operands[0]
    for operand in operands[1:]:
        shape = tuple(torch.broadcast_shapes(result.shape, operand.shape))  # type: ignore[no-untyped-call]
        result = tie_broadcast(c, result, operand, shape)
    return result.expand(c.shape(node))


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def tie_broadcast(c: "Coupling", a: Tensor, b: Tensor, shape: Sequence[int]) -> Tensor:
    """Tie two operands of an element-wise operator; labels of the result, of this shape."""
    rank = len(shape)
    a = a.reshape((1,) * (rank - a.dim()) + tuple(a.shape))
    b = b.reshape((1,) * (rank - b.dim()) + tuple(b.shape))
    only_b = [d for d in range(rank) if a.size(d) == 1 and shape[d] > 1]
    only_a = [d for d in range(rank) if b.size(d) == 1 and shape[d] > 1]
    over_b, over_a = c.varies(b, only_b), c.varies(a, only_a)
    if over_a and over_b:
        settled = _outer_product(c, a, b, shape)
        if settled is not None:
            return settled
        over_b, over_a = c.varies(b, only_b), c.varies(a, only_a)
    if over_b:
        return _broadcast_over(c, a, b, only_b, shape)
    if over_a:
        return _broadcast_over(c, b, a, only_a, shape)
    if a.numel() == 1 and b.numel() > 1:
        c.freeze(a, "one number serves many features")
        return b.expand(tuple(shape))
    if b.numel() == 1 and a.numel() > 1:
        c.freeze(b, "one number serves many features")
        return a.expand(tuple(shape))
    c.union(*_stripped(a, b))
    if not only_b:
        return c.sets.canonical(a.expand(tuple(shape)))
    return c.sets.canonical((a if only_a else b).expand(tuple(shape)))


def _stripped(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    from edgeprune.graph.labels import strip

    return strip(a), strip(b)


def _distinct(c: "Coupling", labels: Tensor) -> int:
    return len(np.unique(c.sets.classes(labels).numpy()))


def _outer_product(c: "Coupling", a: Tensor, b: Tensor, shape: Sequence[int]) -> Tensor | None:
    """Both operands are broadcast over the other's labels: one of them cannot be pruned.

    That is the plainer one, or the one with fewer labels. While ties are still being made the
    other's labels are passed on; afterwards the loser is frozen and None returned.
    """
    level_a, level_b = c.level(a), c.level(b)
    if level_a != level_b:
        loser, winner = (a, b) if level_a < level_b else (b, a)
    else:
        loser, winner = (a, b) if _distinct(c, a) <= _distinct(c, b) else (b, a)
    if not c.resolving:
        return c.sets.canonical(winner.expand(tuple(shape)))
    c.freeze(loser, "meets other features in an outer product")
    return None


def _broadcast_over(
    c: "Coupling", a: Tensor, b: Tensor, dims: list[int], shape: Sequence[int]
) -> Tensor:
    """``a`` has size 1 in ``dims``, over which the labels of ``b`` vary."""
    shared = [d for d in range(len(shape)) if d not in dims and a.size(d) > 1]
    if c.varies(b, shared):
        data = c.is_plain(b) and not c.is_plain(a) and c.varies(a, shared)
        if not data and not c.resolving:
            return c.sets.canonical(b.expand(tuple(shape)))
        c.tie(b, dims)
        return tie_broadcast(c, a, c.sets.canonical(b), shape)
    c.freeze(a, "is broadcast over features")
    return c.sets.canonical(b.expand(tuple(shape)))


@labels("glu")
def label_glu(c: "Coupling", node: Node) -> Any:
    """The two halves tied."""
    first, second = c.labels(node.args[0]).chunk(2, c.argument(node, 1, "dim", -1))
    return tie_broadcast(c, first, second, c.shape(node))


@labels("softmax", "log_softmax", "cumsum", "logcumsumexp", "cumprod")
def label_along(c: "Coupling", node: Node) -> Any:
    """Operators whose result depends on everything along one dimension."""
    x = c.labels(node.args[0])
    if c.varies(x, [c.argument(node, 1, "dim") % x.dim()]):
        c.freeze(x, f"{node.target!s} runs over features")
    return c.sets.canonical(x)

"""Reductions. Over features they are safe only where they serve a normalisation."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.labels import narrowed
from edgeprune.graph.ops import op_name
from edgeprune.graph.planes import Plane, Planes
from edgeprune.graph.rules.registry import Call, labels, rewrites

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Value
    from edgeprune.graph.shrinker import Shrinker

_REDUCTIONS = (
    "mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm", "norm", "prod", "any",
    "all", "logsumexp", "var_mean", "std_mean",
)  # fmt: skip
_SELECTING = (
    "max", "min", "argmax", "argmin", "topk", "sort", "median", "mode", "kthvalue",
)  # fmt: skip
_SUMS = {"sum", "linalg_vector_norm", "norm"}
_SPREADS = {"var", "std", "var_mean", "std_mean"}
_ZERO_OF_ZEROS = {"mean", "sum", "amax", "amin", "max", "min", "prod", *_SPREADS, *_SUMS}
_STATISTICS = {"mean", "sum", "linalg_vector_norm", "norm", *_SPREADS}
_DIM_POSITION = {"linalg_vector_norm": 2, "norm": 2, "topk": 2, "kthvalue": 2}

_SCALAR_STEPS = {
    "add", "mul", "div", "pow", "sqrt", "rsqrt", "clamp", "clamp_min", "reciprocal", "to", "expand",
    "unsqueeze", "expand_as", "maximum", "type_as", "square", "mean",
}  # fmt: skip


@labels(*_REDUCTIONS, *_SELECTING)
def label_reduction(c: "Coupling", node: Node) -> "Value | None":
    """Planes of the dimensions that stay; along the others nothing may vary, or it is consumed.

    A choice of experts ends at those it chooses, whoever they are.
    """
    x = c.planes(node.args[0])
    dims = _reduced_dims(c, node, len(x.shape))
    if dims is None:
        return None
    chosen = c.experts(node) is not None
    parts = [
        kept
        for part in x.parts
        if not (chosen and c.varies(part.labels, dims))
        and (kept := _reduced(c, node, part, dims)) is not None
    ]
    value = node.meta["val"]
    many = isinstance(value, tuple | list)
    results = tuple(_shaped(parts, dims, tuple(v.shape)) for v in (value if many else (value,)))
    return results if many else results[0]


def _reduced_dims(c: "Coupling", node: Node, rank: int) -> list[int] | None:
    name = op_name(node)
    if name in ("max", "min") and len(node.args) > 1 and isinstance(node.args[1], Node):
        return None
    default = -1 if name in ("topk", "sort", "median", "mode", "kthvalue") else None
    if name in ("sort", "mode", "median"):
        stable = name == "sort" and "stable" in str(node.target)
        given = c.argument(node, 2 if stable else 1, "dim", default)
    else:
        given = c.argument(node, _DIM_POSITION.get(name, 1), "dim", default)
    if isinstance(given, bool) or given is None or given == []:
        return list(range(rank))
    dims = [given] if isinstance(given, int) else list(given)
    return [d % rank for d in dims] if rank else []


def _reduced(c: "Coupling", node: Node, part: Plane, dims: list[int]) -> Plane | None:
    """A plane with size 1 in the reduced dimensions, None where it ends."""
    labels_, name = part.labels, op_name(node)
    zero = part.zero and name in _ZERO_OF_ZEROS
    if c.varies(labels_, dims):
        rest = [d for d in range(labels_.dim()) if d not in dims]
        rescaling = rescales(node, node)
        if part.zero and (name in _SUMS or (name == "mean" and not rescaling)):
            c.tie(labels_, rest)  # what is gone adds nothing
            return None
        if name not in _STATISTICS or not rescaling:
            c.freeze(labels_, f"{name} runs over features")
            return None
        if node.args[0] in c.stored:
            c.freeze(labels_, f"{name} of a weight runs over them")
            return None
        c.renormalised[node] = None
        if not c.varies(labels_, rest):
            return None
        labels_ = c.tie(labels_, dims)
    return Plane(narrowed(labels_, dims), zero)


def rescales(node: Node, statistic: Node, inverted: bool = False) -> bool:
    """Whether every use of a statistic ends by shifting or scaling what it was taken from.

    A spread has to divide: a threshold so many deviations above the mean normalises nothing.
    """
    for user in node.users:
        if user.op != "call_function":
            return False
        name = op_name(user)
        if name == "getitem":  # the spread and the mean of one operator
            if not rescales(user, user):
                return False
            continue
        inverse = inverted or _inverts(user, node)
        others = [i for i in user.all_input_nodes if i is not node]
        wider = any(_numel(other) > _numel(node) for other in others)
        if wider and name in ("sub", "mul", "div", "add"):
            if _is_spread(statistic) and not inverse:
                return False
            continue
        if name not in _SCALAR_STEPS:
            return False
        if not rescales(user, statistic, inverse):
            return False
    return bool(node.users)


def _is_spread(statistic: Node) -> bool:
    if op_name(statistic) == "getitem":
        return bool(statistic.args[1] == 0)
    return op_name(statistic) in _SPREADS


def _inverts(user: Node, node: Node) -> bool:
    """Whether an operator's result is smaller the larger its argument is."""
    name, second = op_name(user), user.args[1] if len(user.args) > 1 else None
    if name == "pow":
        return isinstance(second, int | float) and second < 0
    return name in ("rsqrt", "reciprocal") or (name == "div" and second is node)


def _numel(node: Node) -> int:
    value = node.meta.get("val")
    return value.numel() if isinstance(value, Tensor) else 1


def _shaped(parts: list[Plane], dims: list[int], shape: tuple[int, ...]) -> Planes:
    def moved(labels_: Tensor) -> Tensor:
        if labels_.dim() != len(shape):
            for dim in sorted(dims, reverse=True):
                labels_ = labels_.squeeze(dim)
        return labels_.expand(shape)

    return Planes(shape, tuple(part.map(moved) for part in parts))


@labels("diff")
def label_diff(c: "Coupling", node: Node) -> "Value":
    """Differences of neighbours tie them."""
    x, shape = c.planes(node.args[0]), c.shape(node)
    dim = c.argument(node, 2, "dim", -1) % len(shape)
    return x.map(lambda labels_: c.tie(labels_, [dim]).expand(shape), shape)


@rewrites("mean")
def shrink_mean(s: "Shrinker", node: Node) -> Call:
    """A mean that is no normalisation keeps its divisor: a sum over survivors by the old count."""
    source, given = node.args[0], s.argument(node, 1, "dim")
    dims = [given] if isinstance(given, int) else list(given or range(s.rank(source)))
    lost = [d for d in dims if s.kept(source, d) is not None]
    if not lost or rescales(node, node):
        return Call.of(node)
    value: Any = source
    rest = [d for d in dims if d not in lost]
    if rest:
        value = s.make(f"{node.name}_rest", torch.ops.aten.mean.dim, value, rest, True)
    keep = s.argument(node, 2, "keepdim", False)
    value = s.make(f"{node.name}_sum", torch.ops.aten.sum.dim_IntList, value, dims, keep)
    count = math.prod(s.size(source, d) for d in lost)
    return Call(torch.ops.aten.mul.Tensor, (value, 1 / count), {})

"""Reductions. Over features they are safe only where they serve a normalisation."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.ops import op_name
from edgeprune.graph.rules.registry import labels

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling

_REDUCTIONS = (
    "mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm", "norm", "prod", "any",
    "all", "logsumexp",
)  # fmt: skip
_SELECTING = (
    "max", "min", "argmax", "argmin", "topk", "sort", "median", "mode", "kthvalue",
)  # fmt: skip
_STATISTICS = {"mean", "sum", "var", "std", "linalg_vector_norm", "norm"}
_DIM_POSITION = {"linalg_vector_norm": 2, "norm": 2, "topk": 2, "kthvalue": 2}

_SCALAR_STEPS = {
    "add", "mul", "div", "pow", "sqrt", "rsqrt", "clamp", "clamp_min", "reciprocal", "to", "expand",
    "unsqueeze", "expand_as", "maximum", "type_as", "square", "mean",
}  # fmt: skip


@labels(*_REDUCTIONS, *_SELECTING)
def label_reduction(c: "Coupling", node: Node) -> Any:
    """Labels of the dimensions that stay; along the others nothing may vary."""
    x: Tensor = c.labels(node.args[0])
    dims = _reduced_dims(c, node, x)
    if dims is None:
        return None
    if c.varies(x, dims):
        result = _over_features(c, node, x, dims)
    else:
        result = c.sets.classes(x)
    for dim in dims:
        result = result.narrow(dim, 0, 1)
    value = node.meta["val"]
    many = isinstance(value, tuple | list)
    results = tuple(_shaped(result, dims, v) for v in (value if many else (value,)))
    return results if many else results[0]


def _reduced_dims(c: "Coupling", node: Node, x: Tensor) -> list[int] | None:
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
        return list(range(x.dim()))
    dims = [given] if isinstance(given, int) else list(given)
    return [d % x.dim() for d in dims] if x.dim() else []


def _over_features(c: "Coupling", node: Node, x: Tensor, dims: list[int]) -> Tensor:
    """A statistic over the survivors, where it only rescales those; otherwise frozen."""
    rest = [d for d in range(x.dim()) if d not in dims]
    if op_name(node) not in _STATISTICS or not rescales(node, node):
        c.freeze(x, f"{op_name(node)} runs over features")
        return c.sets.classes(x)
    c.renormalised[node] = x
    if c.varies(x, rest):
        return c.tie(x, dims)
    return torch.zeros([1] * x.dim(), dtype=torch.int64)


def rescales(node: Node, statistic: Node) -> bool:
    """Whether every use of a statistic ends by shifting or scaling what it was taken from."""
    for user in node.users:
        if user.op != "call_function":
            return False
        name = op_name(user)
        others = [i for i in user.all_input_nodes if i is not node]
        wider = any(_numel(other) > _numel(node) for other in others)
        if wider and name in ("sub", "mul", "div", "add"):
            continue
        if name not in _SCALAR_STEPS:
            return False
        if not rescales(user, statistic):
            return False
    return bool(node.users)


def _numel(node: Node) -> int:
    value = node.meta.get("val")
    return value.numel() if isinstance(value, Tensor) else 1


def _shaped(labels_: Tensor, dims: list[int], value: Tensor) -> Tensor:
    if value.dim() != labels_.dim():
        for dim in sorted(dims, reverse=True):
            labels_ = labels_.squeeze(dim)
    return labels_.expand(value.shape)


@labels("diff")
def label_diff(c: "Coupling", node: Node) -> Any:
    """Differences of neighbours tie them."""
    x = c.labels(node.args[0])
    return c.tie(x, [c.argument(node, 2, "dim", -1) % x.dim()]).expand(c.shape(node))

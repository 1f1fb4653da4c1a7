"""Where a layer's output lands: the value of the dense model that it should reproduce.

A layer at the end of a residual branch lands on the residual sum, past the normalisation
statistics that are constants at inference. Fitting it to the dense *sum*, less the shortcut as
it now is, lets each block repair what the blocks before it lost. Where the blocks behind it
have been emptied, it lands on the sum behind the last of them and stands in for them too.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgeprune.compression.emptied import ADD, EmptiedSum, emptied_sum
from edgeprune.compression.executor import Executor
from edgeprune.graph.layers import WeightedLayer

aten = torch.ops.aten
_TRANSPARENT = {aten.dropout.default, aten.alias.default, aten.contiguous.default}
_RELU = {aten.relu.default, aten.relu_.default}


@dataclass(frozen=True)
class Landing:
    """The way from a layer's product to the value it is fitted to.

    Attributes:
        node: Where the layer's own output ends.
        norm: The batch normalisation on the way, if any.
        shortcut: The other summand, if ``node`` is a residual sum.
        target: The node whose dense value is the target: ``node``, or the sum behind the last
            of the emptied blocks that follow.
        passed: The emptied sums on the way from ``node`` to ``target``.
    """

    node: fx.Node
    norm: fx.Node | None
    shortcut: fx.Node | None
    target: fx.Node
    passed: tuple[EmptiedSum, ...]


def residual_sums(module: fx.GraphModule) -> frozenset[str]:
    """Names of the nodes of a dense graph that add two computed values of equal shape."""
    return frozenset(
        node.name
        for node in module.graph.nodes
        if node.target in ADD
        and isinstance(node.args[0], fx.Node)
        and _is_residual(node, node.args[0])
        and emptied_sum(node) is None
    )


def landing(layer: WeightedLayer, sums: frozenset[str]) -> Landing:
    """Follow the layer's output through constant affine steps to the sum it joins.

    Args:
        layer: A layer of a shrunk graph.
        sums: The residual sums of the dense graph, the ones that may have been emptied.
    """
    node, norm = layer.node, None
    while len(node.users) == 1:
        user = next(iter(node.users))
        if user.target in _TRANSPARENT:
            node = user
        elif user.target is aten.batch_norm.default and norm is None and not user.args[5]:
            node = norm = user
        elif user.target in ADD and _is_residual(user, node):
            other = user.args[1] if user.args[0] is node else user.args[0]
            shortcut = other if isinstance(other, fx.Node) else None
            return _reaching(user, norm, shortcut, sums)
        else:
            break
    return _reaching(node, norm, None, sums)


def _reaching(
    node: fx.Node, norm: fx.Node | None, shortcut: fx.Node | None, sums: frozenset[str]
) -> Landing:
    """The landing at ``node``, moved on over emptied blocks."""
    target, passed = node, []
    while (ahead := _next_emptied(target)) is not None and ahead.node.name in sums:
        passed.append(ahead)
        target = ahead.node
    return Landing(node, norm, shortcut, target, tuple(passed))


def _next_emptied(node: fx.Node) -> EmptiedSum | None:
    """The emptied sum that alone reads ``node``, if without its constant it changes nothing."""
    through_relu = rectified(node) and len(node.users) == 1
    value = next(iter(node.users)) if through_relu else node
    if len(value.users) != 1:
        return None
    ahead = emptied_sum(next(iter(value.users)))
    # relu(relu(s) + 0) = relu(s), while a sum that is read as it is may be negative.
    return None if ahead is None or (through_relu and not rectified(ahead.node)) else ahead


def rectified(node: fx.Node) -> bool:
    """Whether nothing but ReLUs read a value."""
    return bool(node.users) and all(user.target in _RELU for user in node.users)


def _is_residual(user: fx.Node, node: fx.Node) -> bool:
    left, right = user.args[:2]
    other = right if left is node else left
    if not isinstance(other, fx.Node) or other is node or other.op == "get_attr":
        return False
    same = _shape(other) == _shape(node) == _shape(user)
    return bool(user.kwargs.get("alpha", 1) == 1 and same)


def _shape(node: fx.Node) -> tuple[str, ...]:
    value = node.meta.get("val")
    return tuple(str(size) for size in value.shape) if isinstance(value, Tensor) else ()


def affine(executor: Executor, norm: fx.Node | None, width: int) -> tuple[Tensor, Tensor]:
    """Scale and shift that the normalisation applies per channel, each of shape (width,)."""
    if norm is None:
        return torch.ones(width), torch.zeros(width)
    weight, bias, mean, variance = (_read(executor, norm.args[i]) for i in range(1, 5))
    eps: Any = norm.args[7]
    scale = torch.rsqrt(variance + eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def _read(executor: Executor, argument: Any) -> Any:
    if argument is None:
        return None
    return executor.parameter(str(argument.target))

"""Where a layer's output lands: the value of the dense model that it should reproduce.

A layer at the end of a residual branch lands on the residual sum, past the normalisation
statistics that are constants at inference. Fitting it to the dense *sum*, less the shortcut as
it now is, lets each block repair what the blocks before it lost.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgeprune.compression.executor import Executor
from edgeprune.compression.layers import WeightedLayer

aten = torch.ops.aten
_TRANSPARENT = {aten.dropout.default, aten.alias.default, aten.contiguous.default}
_ADD = {aten.add.Tensor, aten.add_.Tensor}


@dataclass(frozen=True)
class Landing:
    """The way from a layer's product to the value it is fitted to.

    Attributes:
        node: The node whose dense value is the target.
        norm: The batch normalisation on the way, if any.
        shortcut: The other summand, if ``node`` is a residual sum.
    """

    node: fx.Node
    norm: fx.Node | None
    shortcut: fx.Node | None


def landing(layer: WeightedLayer) -> Landing:
    """Follow the layer's output through constant affine steps to the sum it joins."""
    node, norm = layer.node, None
    while len(node.users) == 1:
        user = next(iter(node.users))
        if user.target in _TRANSPARENT:
            node = user
        elif user.target is aten.batch_norm.default and norm is None and not user.args[5]:
            node = norm = user
        elif user.target in _ADD and _is_residual(user, node):
            other = user.args[1] if user.args[0] is node else user.args[0]
            return Landing(user, norm, other if isinstance(other, fx.Node) else None)
        else:
            break
    return Landing(node, norm, None)


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

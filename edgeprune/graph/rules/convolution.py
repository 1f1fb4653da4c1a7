"""Convolutions: dense, depthwise, grouped and transposed."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.ops import op_name
from edgeprune.graph.rules.registry import Call, labels, rewrites

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Weight
    from edgeprune.graph.shrinker import Shrinker

_FORWARD = ("conv1d", "conv2d", "conv3d")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_GROUPS = 6


@labels(*_FORWARD, *_TRANSPOSED)
def label_convolution(c: "Coupling", node: Node) -> Any:
    """Channels of the kernel's output dimension; input channels are consumed."""
    weight = c.weight(node.args[1])
    x, shape = c.labels(node.args[0]), c.shape(node)
    if weight is None or x.dim() != len(weight.dims):
        return None
    bias = c.argument(node, 2, "bias")
    groups = c.argument(node, _GROUPS, "groups", 1)
    c.use_vector(bias, node)
    space = list(range(2, x.dim()))
    for dim in space:
        c.freeze(weight.dims[dim], "kernel positions stay")
    pointwise = all(len(weight.dims[d]) == 1 for d in space)
    if pointwise and x.size(1) > 1 and c.varies(x, space) and not c.varies(x, [1]):
        return _mixing(c, x, weight, bias, shape)
    channels = c.tie(x, [d for d in range(x.dim()) if d != 1]).reshape(-1).expand(x.size(1))
    out = _channels(c, node, channels, weight, groups, shape[1])
    if bias is not None:
        c.union(c.labels(bias), out)
    return out.reshape((1, shape[1]) + (1,) * len(space)).expand(shape)


def _mixing(
    c: "Coupling", x: Tensor, weight: "Weight", bias: Any, shape: tuple[int, ...]
) -> Tensor:
    """A 1x1 convolution over positions: the labels lie along space and pass through."""
    for dim in (0, 1):
        c.freeze(weight.dims[dim], "weights that mix positions")
    if bias is not None:
        c.freeze(c.labels(bias), "weights that mix positions")
    return c.sets.classes(x).narrow(1, 0, 1).expand(shape)


def _channels(
    c: "Coupling", node: Node, channels: Tensor, weight: "Weight", groups: int, count: int
) -> Tensor:
    """Labels of the output channels."""
    transposed = op_name(node) in _TRANSPOSED
    out_dim, in_dim = (1, 0) if transposed else (0, 1)
    if groups == 1:
        c.use(weight, out_dim, in_dim, node)
        c.union(channels, weight.dims[in_dim], "consumes data that cannot shrink")
        return weight.dims[out_dim]
    if transposed:
        return _grouped_transposed(c, node, channels, weight, groups, count)
    if groups == len(channels):
        c.freeze(weight.dims[1], "one input channel a group")
        c.use_vector_dim(weight, 0, node)
        c.union(weight.dims[0], channels.repeat_interleave(count // len(channels)))
        return weight.dims[0]
    return _grouped(c, node, channels, weight, groups)


def _grouped(c: "Coupling", node: Node, channels: Tensor, weight: "Weight", groups: int) -> Tensor:
    """Whole groups where there are many, else the same channel of every group."""
    out = weight.dims[0]
    ins, outs = channels.reshape(groups, -1), out.reshape(groups, -1)
    if groups >= min(ins.size(1), outs.size(1)):
        c.freeze(weight.dims[1], "groups go as a whole")
        c.use(weight, 0, None, node)
        c.union(c.tie(ins, [1]), c.tie(outs, [1]))
    else:
        c.use(weight, 0, 1, node)
        c.tie(outs, [0])
        c.union(c.tie(ins, [0]).reshape(-1).expand(ins.size(1)), weight.dims[1])
    return out


def _grouped_transposed(
    c: "Coupling", node: Node, channels: Tensor, weight: "Weight", groups: int, count: int
) -> Tensor:
    c.freeze(weight.dims[1], "groups of a transposed convolution")
    if groups == len(channels) == count:
        c.use_vector_dim(weight, 0, node)
        c.union(channels, weight.dims[0])
        return channels
    c.freeze(channels, "groups of a transposed convolution")
    c.freeze(weight.dims[0], "groups of a transposed convolution")
    return torch.zeros(count, dtype=torch.int64)


@rewrites(*_FORWARD, *_TRANSPOSED)
def shrink_convolution(s: "Shrinker", node: Node) -> Call:
    """The number of groups follows the channels that stay."""
    groups = s.argument(node, _GROUPS, "groups", 1)
    source = node.args[0]
    if groups == 1 or (s.kept(source, 1) is None and s.kept(node.args[1], 1) is None):
        return Call.of(node)
    channels = s.new_size(source, 1)
    if op_name(node) in _TRANSPOSED:
        return Call.of(node).replace(_GROUPS, "groups", channels)
    per_group = s.new_size(node.args[1], 1)
    return Call.of(node).replace(_GROUPS, "groups", channels // max(per_group, 1))

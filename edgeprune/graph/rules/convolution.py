"""Convolutions: dense, depthwise, grouped and transposed."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.ops import op_name
from edgeprune.graph.planes import Plane, Planes
from edgeprune.graph.rules.consumption import consumed_and_passing
from edgeprune.graph.rules.registry import Call, labels, rewrites

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Value
    from edgeprune.graph.shrinker import Shrinker

_FORWARD = ("conv1d", "conv2d", "conv3d")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_GROUPS = 6


@labels(*_FORWARD, *_TRANSPOSED)
def label_convolution(c: "Coupling", node: Node) -> "Value | None":
    """Channels of the kernel's output dimension; input channels are consumed."""
    x, shape = c.planes(node.args[0]), c.shape(node)
    kernel = c.axes(node.args[1])
    if len(x.shape) != len(kernel):
        return None
    bias = c.argument(node, 2, "bias")
    groups = c.argument(node, _GROUPS, "groups", 1)
    c.use_vector(bias, node)
    for labels_ in kernel[2:]:
        c.freeze(labels_, "kernel positions stay")
    pointwise = groups == 1 and c.shape(node.args[1])[2:] == (1,) * (len(shape) - 2)  # type: ignore[arg-type]
    same = pointwise and x.shape[2:] == shape[2:]
    channels, passing = consumed_and_passing(c, x, 1, may_pass=same)
    out = _channels(c, node, channels, kernel, groups, shape[1])
    if isinstance(bias, Node):
        c.union(c.axes(bias)[0], out)
    made = Plane(out.reshape((1, shape[1]) + (1,) * (len(shape) - 2)).expand(shape))
    zero = not isinstance(bias, Node)
    moved = [Plane(p.labels.narrow(1, 0, 1).expand(shape), p.zero and zero) for p in passing]
    return Planes(shape, (made, *moved))


def _channels(
    c: "Coupling", node: Node, channels: Tensor, kernel: list[Tensor], groups: int, count: int
) -> Tensor:
    """Labels of the output channels."""
    transposed = op_name(node) in _TRANSPOSED
    out_dim, in_dim = (1, 0) if transposed else (0, 1)
    if groups == 1:
        c.use(kernel[out_dim], "output", node)
        c.use(kernel[in_dim], "input", node)
        c.union(channels, kernel[in_dim], "consumes data that cannot shrink")
        return kernel[out_dim]
    if transposed:
        return _grouped_transposed(c, node, channels, kernel, groups, count)
    if groups == len(channels):
        c.use(kernel[0], "vector", node)
        c.union(kernel[0], channels.repeat_interleave(count // len(channels)))
        return kernel[0]
    return _grouped(c, node, channels, kernel, groups)


def _grouped(
    c: "Coupling", node: Node, channels: Tensor, kernel: list[Tensor], groups: int
) -> Tensor:
    """Whole groups where there are many, else the same channel of every group."""
    out = kernel[0]
    ins, outs = channels.reshape(groups, -1), out.reshape(groups, -1)
    if groups >= min(ins.size(1), outs.size(1)):
        c.freeze(kernel[1], "groups go as a whole")
        c.use(kernel[0], "output", node)
        c.union(c.tie(ins, [1]), c.tie(outs, [1]))
    else:
        c.use(kernel[0], "output", node)
        c.use(kernel[1], "input", node)
        c.tie(outs, [0])
        c.union(c.tie(ins, [0]).reshape(-1).expand(ins.size(1)), kernel[1])
    return out


def _grouped_transposed(
    c: "Coupling", node: Node, channels: Tensor, kernel: list[Tensor], groups: int, count: int
) -> Tensor:
    c.freeze(kernel[1], "groups of a transposed convolution")
    c.feature(kernel[0])
    if groups == len(channels) == count:
        c.use(kernel[0], "vector", node)
        c.union(channels, kernel[0])
        return channels
    c.freeze(channels, "groups of a transposed convolution")
    c.freeze(kernel[0], "groups of a transposed convolution")
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

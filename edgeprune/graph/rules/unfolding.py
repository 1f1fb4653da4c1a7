"""Patches to columns and back: each channel becomes one row for every kernel position."""

from typing import TYPE_CHECKING, Any

from torch.fx import Node

from edgeprune.graph.rules.registry import labels

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling


@labels("im2col")
def label_im2col(c: "Coupling", node: Node) -> Any:
    """``[N, C, H, W] -> [N, C k k, L]``."""
    x, shape = c.labels(node.args[0]), c.shape(node)
    channels = c.tie(x, [0, 2, 3]).reshape(-1).expand(x.size(1))
    return channels.repeat_interleave(shape[1] // x.size(1)).reshape(1, -1, 1).expand(shape)


@labels("col2im")
def label_col2im(c: "Coupling", node: Node) -> Any:
    """``[N, C k k, L] -> [N, C, H, W]``."""
    x, shape = c.labels(node.args[0]), c.shape(node)
    rows = c.tie(x, [0, 2]).reshape(-1).expand(x.size(1))
    channels = c.tie(rows.reshape(shape[1], -1), [1]).reshape(-1).expand(shape[1])
    return channels.reshape(1, -1, 1, 1).expand(shape)

"""Patches to columns and back: each channel becomes one row for every kernel position."""

from typing import TYPE_CHECKING

from torch.fx import Node

from edgeprune.graph.planes import Plane, Planes
from edgeprune.graph.rules.consumption import consumed_and_passing
from edgeprune.graph.rules.registry import labels

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Value


@labels("im2col")
def label_im2col(c: "Coupling", node: Node) -> "Value":
    """``[N, C, H, W] -> [N, C k k, L]``."""
    x, shape = c.planes(node.args[0]), c.shape(node)
    channels, _ = consumed_and_passing(c, x, 1, may_pass=False)
    rows = channels.repeat_interleave(shape[1] // x.shape[1]).reshape(1, -1, 1)
    return Planes(shape, (Plane(rows.expand(shape), all(part.zero for part in x.parts)),))


@labels("col2im")
def label_col2im(c: "Coupling", node: Node) -> "Value":
    """``[N, C k k, L] -> [N, C, H, W]``."""
    x, shape = c.planes(node.args[0]), c.shape(node)
    rows, _ = consumed_and_passing(c, x, 1, may_pass=False)
    channels = c.tie(rows.reshape(shape[1], -1), [1]).reshape(-1).expand(shape[1])
    return Planes(
        shape,
        (Plane(channels.reshape(1, -1, 1, 1).expand(shape), all(part.zero for part in x.parts)),),
    )

"""Normalisations: scale and shift go along with the features; statistics over features are
taken over the survivors, which is reported."""

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.fx import Node

from edgeprune.graph.ops import op_name
from edgeprune.graph.rules.elementwise import tie_broadcast
from edgeprune.graph.rules.registry import Call, labels, rewrites

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling
    from edgeprune.graph.shrinker import Shrinker


@labels("layer_norm", "rms_norm", "_fused_rms_norm")
def label_layer_norm(c: "Coupling", node: Node) -> Any:
    """Statistics over the last dimensions."""
    x: Tensor = c.labels(node.args[0])
    shape, over = c.shape(node), len(node.args[1])  # type: ignore[arg-type]
    if c.varies(x, list(range(x.dim() - over, x.dim()))):
        c.renormalised[node] = x
    for index, name in ((2, "weight"), (3, "bias")):
        parameter = c.argument(node, index, name)
        if isinstance(parameter, Node):
            c.use_vector(parameter, node)
            x = tie_broadcast(c, x, c.labels(parameter), shape)
    return x


@labels("batch_norm", "instance_norm", "prelu")
def label_channel_norm(c: "Coupling", node: Node) -> Any:
    """One number a channel; batch statistics are stored, so nothing is recomputed."""
    x: Tensor = c.labels(node.args[0])
    name, shape = op_name(node), c.shape(node)
    if name == "batch_norm" and c.argument(node, 5, "training", False):
        return None
    for index in (1,) if name == "prelu" else (1, 2, 3, 4):
        parameter = c.argument(node, index)
        if isinstance(parameter, Node):
            c.use_vector(parameter, node)
            vector = c.labels(parameter)
            x = tie_broadcast(c, x, vector.reshape((1, -1) + (1,) * (x.dim() - 2)), shape)
    return x


@labels("group_norm")
def label_group_norm(c: "Coupling", node: Node) -> Any:
    """Many small groups go as a whole; few large ones lose the same channels each."""
    x: Tensor = c.labels(node.args[0])
    groups, channels = c.argument(node, 1), x.size(1)
    vector = c.tie(x, [d for d in range(x.dim()) if d != 1]).reshape(-1).expand(channels)
    per_group = channels // groups
    if groups > 1:
        c.tie(vector.reshape(groups, per_group), [1] if groups >= per_group else [0])
    if per_group > 1 and groups < per_group:
        c.renormalised[node] = x
    for index, name in ((2, "weight"), (3, "bias")):
        parameter = c.argument(node, index, name)
        if isinstance(parameter, Node):
            c.use_vector(parameter, node)
            wide = c.labels(parameter).reshape((1, -1) + (1,) * (x.dim() - 2))
            x = tie_broadcast(c, x, wide, c.shape(node))
    return x


@rewrites("layer_norm", "rms_norm", "_fused_rms_norm")
def shrink_layer_norm(s: "Shrinker", node: Node) -> Call:
    """The normalised shape follows."""
    over = len(node.args[1])  # type: ignore[arg-type]
    rank = s.rank(node)
    if not any(d >= rank - over for d in s.changed_dims(node)):
        return Call.of(node)
    shape = [s.new_size(node, d) for d in range(rank - over, rank)]
    return Call.of(node).replace(1, "normalized_shape", shape)


@rewrites("group_norm")
def shrink_group_norm(s: "Shrinker", node: Node) -> Call:
    """Whole groups: fewer groups; otherwise smaller ones."""
    groups, channels = s.argument(node, 1, "num_groups"), s.size(node, 1)
    per_group = channels // groups
    if groups == 1 or groups < per_group:
        return Call.of(node)
    return Call.of(node).replace(1, "num_groups", s.new_size(node, 1) // per_group)

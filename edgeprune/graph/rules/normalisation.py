"""Normalisations: scale and shift go along with the features; statistics over features are
taken over the survivors, which is reported."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch.fx import Node

from edgeprune.graph.ops import op_name
from edgeprune.graph.planes import Plane, Planes
from edgeprune.graph.rules.consumption import consumed_and_passing
from edgeprune.graph.rules.elementwise import Zero, tie_broadcast
from edgeprune.graph.rules.registry import Call, labels, rewrites

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Value
    from edgeprune.graph.shrinker import Shrinker


@labels("layer_norm", "rms_norm", "_fused_rms_norm")
def label_layer_norm(c: "Coupling", node: Node) -> "Value":
    """Statistics over the last dimensions."""
    x = c.planes(node.args[0])
    shape, over = c.shape(node), len(node.args[1])  # type: ignore[arg-type]
    last = list(range(len(shape) - over, len(shape)))
    if any(c.varies(part.labels, last) for part in x.parts):
        c.renormalised[node] = None
    if op_name(node) == "layer_norm":
        x = x.without_zeros()
    return _scaled(c, node, x, (2, "weight"), (3, "bias"), lambda vector: vector)


def _scaled(
    c: "Coupling",
    node: Node,
    x: Planes,
    weight: tuple[int, str],
    bias: tuple[int, str],
    lift: Callable[[Planes], Planes],
) -> Planes:
    """``x * weight + bias``, where there are such."""
    zeros: tuple[tuple[tuple[int, str], Zero], ...] = ((weight, "any"), (bias, "all"))
    for (index, name), zero in zeros:
        parameter = c.argument(node, index, name)
        if isinstance(parameter, Node):
            c.use_vector(parameter, node)
            x = tie_broadcast(c, x, lift(c.planes(parameter)), x.shape, zero)
    return x


def _channelwise(rank: int) -> Callable[[Planes], Planes]:
    """Lays a vector with a number for each channel out to meet ``[N, C, ...]``."""

    def lift(vector: Planes) -> Planes:
        shape = (1, vector.shape[0]) + (1,) * (rank - 2)
        return vector.map(lambda labels_: labels_.reshape(shape), shape)

    return lift


@labels("batch_norm", "instance_norm")
def label_channel_norm(c: "Coupling", node: Node) -> "Value | None":
    """One number a channel: stored statistics, or those of a channel's own entries."""
    x = c.planes(node.args[0])
    lift = _channelwise(len(x.shape))
    if c.argument(node, 5, "training", False):  # the argument use_input_stats of instance_norm
        if any(isinstance(c.argument(node, i), Node) for i in (3, 4)):
            return None  # it updates them
        x = _own_statistics(c, x)
    else:
        x = _scaled(c, node, x, (4, "running_var"), (3, "running_mean"), lift)
    return _scaled(c, node, x, (1, "weight"), (2, "bias"), lift)


def _own_statistics(c: "Coupling", x: Planes) -> Planes:
    """The channels of a value; what else varies in it, the statistics of a channel run over."""
    parts = []
    for part in x.parts:
        if c.varies(part.labels, [d for d in range(len(x.shape)) if d != 1]):
            c.freeze(part.labels, "a channel's statistics run over it")
        else:
            parts.append(part)
    return Planes(x.shape, tuple(parts))


@labels("prelu")
def label_prelu(c: "Coupling", node: Node) -> "Value":
    """A slope for each channel, or one for all."""
    x = c.planes(node.args[0])
    c.use_vector(node.args[1], node)
    slope = c.planes(node.args[1])
    if slope.shape == (1,) or len(x.shape) < 2:
        return tie_broadcast(c, x, slope, x.shape, "first")
    return tie_broadcast(c, x, _channelwise(len(x.shape))(slope), x.shape, "first")


@labels("group_norm")
def label_group_norm(c: "Coupling", node: Node) -> "Value":
    """Many small groups go as a whole; few large ones lose the same channels each."""
    x = c.planes(node.args[0])
    groups, shape = c.argument(node, 1, "num_groups"), x.shape
    per_group = shape[1] // groups
    vector, _ = consumed_and_passing(c, x, 1, may_pass=False)
    if groups > 1:
        c.tie(vector.reshape(groups, per_group), [1] if groups >= per_group else [0])
    if per_group > 1 and groups < per_group:
        c.renormalised[node] = None
    channels = vector.reshape((1, -1) + (1,) * (len(shape) - 2)).expand(shape)
    normal = Planes(shape, (Plane(channels, zero=False),) if x.parts else ())
    return _scaled(c, node, normal, (2, "weight"), (3, "bias"), _channelwise(len(shape)))


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

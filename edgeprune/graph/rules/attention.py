"""Fused attention: two batched products around a softmax."""

from typing import TYPE_CHECKING

from torch.fx import Node

from edgeprune.graph.planes import Planes
from edgeprune.graph.rules.contraction import contract
from edgeprune.graph.rules.elementwise import freeze_along, tie_broadcast
from edgeprune.graph.rules.registry import Call, labels, rewrites

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Value
    from edgeprune.graph.shrinker import Shrinker


@labels("scaled_dot_product_attention")
def label_attention(c: "Coupling", node: Node) -> "Value":
    """Heads pass through; with grouped queries a key head goes with all its query heads."""
    q, k, v = (c.planes(node.args[i]) for i in range(3))
    mask = c.argument(node, 3, "attn_mask")
    if len(q.shape) > 3 and k.shape[-3] != q.shape[-3]:
        groups = q.shape[-3] // k.shape[-3]
        k, v = _repeated(k, groups), _repeated(v, groups)
    lead = "abcde"[: len(q.shape) - 2]
    logits = contract(c, node, q, lead + "ic", k, lead + "jc", lead + "ij")
    if mask is not None:
        logits = tie_broadcast(c, logits, c.planes(mask), logits.shape)
    freeze_along(c, logits, [len(lead) + 1], "attention runs over these")
    return contract(c, node, logits.without_zeros(), lead + "ij", v, lead + "jk", lead + "ik")


def _repeated(x: Planes, groups: int) -> Planes:
    shape = (*x.shape[:-3], x.shape[-3] * groups, *x.shape[-2:])
    return x.map(lambda labels_: labels_.repeat_interleave(groups, -3), shape)


@rewrites("scaled_dot_product_attention")
def shrink_attention(s: "Shrinker", node: Node) -> Call:
    """The scale stays that of the full head, which is part of what the weights mean."""
    query, call = node.args[0], Call.of(node)
    width = s.rank(query) - 1
    if s.kept(query, width) is None or s.argument(node, 6, "scale") is not None:
        return call
    return call.replace(6, "scale", s.size(query, width) ** -0.5)

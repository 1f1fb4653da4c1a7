"""Fused attention: two batched products around a softmax."""

from typing import TYPE_CHECKING, Any

from torch.fx import Node

from edgeprune.graph.rules.contraction import contract
from edgeprune.graph.rules.elementwise import tie_broadcast
from edgeprune.graph.rules.registry import labels

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling


@labels("scaled_dot_product_attention")
def label_attention(c: "Coupling", node: Node) -> Any:
    """Heads pass through; with grouped queries a key head goes with all its query heads."""
    q, k, v = (c.labels(node.args[i]) for i in range(3))
    mask = c.argument(node, 3, "attn_mask")
    if q.dim() > 3 and k.size(-3) != q.size(-3):
        groups = q.size(-3) // k.size(-3)
        k, v = k.repeat_interleave(groups, -3), v.repeat_interleave(groups, -3)
    lead = "abcde"[: q.dim() - 2]
    logits = contract(c, node, q, lead + "ic", k, lead + "jc", lead + "ij")
    if mask is not None:
        logits = tie_broadcast(c, logits, c.labels(mask), tuple(logits.shape))
    return contract(c, node, logits, lead + "ij", v, lead + "jk", lead + "ik")

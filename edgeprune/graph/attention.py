"""Fused attention written out as matrix products, for runtimes and for backward passes."""

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from edgeprune.graph.ops import argument, op_name


@dataclass(frozen=True)
class Attention:
    """The parts of a fused attention without causal mask, dropout or grouped queries.

    Attributes:
        query: Node of shape (..., queries, features); ``key`` and ``value`` alike.
        mask: Node that broadcasts to the scores, or None.
        scale: Factor of the scores.
    """

    query: fx.Node
    key: fx.Node
    value: fx.Node
    mask: fx.Node | None
    scale: float


def is_attention(node: fx.Node) -> bool:
    """Whether a node is fused attention of any form."""
    return node.op == "call_function" and op_name(node) == "scaled_dot_product_attention"


def plain_attention(node: fx.Node) -> Attention | None:
    """What a fused attention computes, or None for its rarer forms."""
    rare = (
        argument(node, 5, "is_causal", False)
        or argument(node, 7, "enable_gqa", False)
        or argument(node, 4, "dropout_p", 0.0)
    )
    query, key, value = node.args[:3]
    assert isinstance(query, fx.Node) and isinstance(key, fx.Node) and isinstance(value, fx.Node)
    scale, shape = argument(node, 6, "scale"), getattr(query.meta.get("val"), "shape", None)
    if scale is None and shape is not None:
        scale = float(shape[-1]) ** -0.5
    if rare or scale is None:
        return None
    return Attention(query, key, value, argument(node, 3, "attn_mask"), float(scale))


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Scaled dot-product attention made of matrix products.

    torch's fused kernel is made for long sequences: in bfloat16 on a CPU its backward pass takes
    up to eight times as long as this on short ones. Exported, it scales query and key by a root
    each and guards every softmax, which costs a runtime some passes over the scores.

    A row of a boolean mask that hides everything gives the mean of the values, where torch gives
    zeros: such rows belong to padding, which nothing reads.

    Args:
        query: (..., queries, features); ``key`` and ``value`` alike.
        mask: True is visible, or numbers to add; broadcast to the scores.
        scale: Factor of the scores.
    """
    scores = torch.matmul(query if scale == 1.0 else query * scale, key.transpose(-1, -2))
    if mask is not None:
        scores = scores + additive_mask(mask, query)
    return torch.matmul(torch.softmax(scores, -1), value)


def additive_mask(mask: Tensor, like: Tensor) -> Tensor:
    """A boolean mask (True is visible) as numbers to add; others in the type of ``like``."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    zeros = torch.zeros((), dtype=like.dtype)
    lowest = torch.full((), torch.finfo(like.dtype).min, dtype=like.dtype)
    return torch.where(mask, zeros, lowest)

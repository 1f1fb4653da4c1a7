"""Attention in the operators that runtimes run fastest.

torch's own export scales query and key by a root each and guards every softmax against rows that
see nothing, which costs a runtime some passes over the scores and hides the transposed product.
"""

from typing import Any

import torch
from torch import Tensor, fx

from edgeprune.graph.ops import argument, op_name


def plain_attention(graph: fx.Graph) -> None:
    """Let attention be computed by :func:`attend`, but for its rarer forms, in place."""
    for node in graph.nodes:
        if node.op != "call_function" or op_name(node) != "scaled_dot_product_attention":
            continue
        rare = (
            argument(node, 5, "is_causal", False)
            or argument(node, 7, "enable_gqa", False)
            or argument(node, 4, "dropout_p", 0.0)
        )
        query = node.args[0].meta.get("val")
        if rare or not isinstance(query, Tensor) or query.dim() != 4:
            continue
        mask, scale = argument(node, 3, "attn_mask"), argument(node, 6, "scale")
        factor: Any = query.shape[-1] ** -0.5 if scale is None else scale
        node.target = attend
        node.args = (*node.args[:3], mask, factor)
        node.kwargs = {}


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Scaled dot-product attention.

    A row of a boolean mask that hides everything gives the mean of the values, where torch gives
    zeros: such rows belong to padding, which nothing reads.

    Args:
        query: (batch, heads, queries, features); ``key`` and ``value`` alike.
        mask: True is visible, or numbers to add; broadcast to the scores.
        scale: Factor of the scores.
    """
    scores = torch.matmul(query * scale, key.transpose(-1, -2))
    if mask is not None:
        scores = scores + (_additive(mask, query) if mask.dtype == torch.bool else mask)
    return torch.matmul(torch.softmax(scores, -1), value)


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    zeros = torch.zeros((), dtype=like.dtype)
    lowest = torch.full((), torch.finfo(like.dtype).min, dtype=like.dtype)
    return torch.where(mask, zeros, lowest)

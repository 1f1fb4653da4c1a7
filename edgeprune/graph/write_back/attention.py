"""torch's multi-head attention with any number of heads of any size.

``nn.MultiheadAttention`` wants heads that fill the width of what it reads: heads x size of a head =
``embed_dim``. Where heads were removed and the width was not, its forward cannot run.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.graph.write_back.sizes import Attributes

# The attribute that only ShrunkAttention has.
SCALE = "scale"


class ShrunkAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` whose heads need not fill the width.

    Parameters, keys of the state dict, arguments and results are those of torch's class; tensors
    are projected, multiplied and masked here by plain operators. Modules become one in place.

    Attributes:
        scale: Of the products of queries and keys; that of the heads before any shrank.
    """

    scale: float | None = None

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """What ``nn.MultiheadAttention.forward`` gives, with its shapes.

        Raises:
            ValueError: ``is_causal`` without the mask that it tells of, as torch wants it.
        """
        if is_causal and attn_mask is None:
            raise ValueError("is_causal is a hint on attn_mask: give attn_mask, too")
        batch = 0 if self.batch_first or query.dim() == 2 else 1
        rows = [
            x.unsqueeze(0) if x.dim() == 2 else x.movedim(batch, 0) for x in (query, key, value)
        ]
        projected = self._projected(*rows)
        q, k, v = (torch.unflatten(x, -1, (self.num_heads, -1)).transpose(1, 2) for x in projected)
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        mask = self._mask(attn_mask, key_padding_mask, q, k)
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            scale = q.shape[-1] ** -0.5 if self.scale is None else self.scale
            products = (q * scale) @ k.transpose(-2, -1)
            weights = (products if mask is None else products + mask).softmax(-1)
            weights = F.dropout(weights, dropout)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=self.scale)
        found = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if query.dim() == 2:
            return found.squeeze(0), None if weights is None else weights.squeeze(0)
        return found.movedim(0, batch), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values of all heads, with the learned key and value at the end."""
        q, k, v = (
            F.linear(x, weight, bias)
            for x, weight, bias in zip((query, key, value), *self._projections(), strict=True)
        )
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(len(k), 1, -1)], 1)
            v = torch.cat([v, self.bias_v.expand(len(v), 1, -1)], 1)
        return q, k, v

    def _projections(self) -> tuple[Any, Any]:
        """The three weights and the three biases; values may be narrower than queries and keys."""
        values = self.out_proj.weight.shape[1]
        weights: Any = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            each = (len(self.in_proj_weight) - values) // 2
            weights = torch.split(self.in_proj_weight, [each, each, values])
        biases: Any = (None, None, None)
        if self.in_proj_bias is not None:
            biases = torch.split(self.in_proj_bias, [len(weight) for weight in weights])
        return weights, biases

    def _mask(
        self, attention: Tensor | None, padding: Tensor | None, q: Tensor, k: Tensor
    ) -> Tensor | None:
        """What is added to the products, broadcastable to batch x heads x queries x keys."""
        parts = []
        if attention is not None and attention.dim() == 3:
            parts.append(torch.unflatten(attention, 0, (-1, self.num_heads)))
        elif attention is not None:
            parts.append(attention)
        if padding is not None:
            padding = padding.unsqueeze(0) if padding.dim() == 1 else padding
            parts.append(padding[:, None, None, :])
        if not parts:
            return None
        added = torch.zeros((), dtype=q.dtype, device=q.device)
        for part in parts:
            if part.dtype == torch.bool:
                part = torch.zeros_like(part, dtype=q.dtype).masked_fill(part, float("-inf"))
            added = added + part
        return F.pad(added, (0, k.shape[2] - added.shape[-1]))


def free_heads(model: nn.Module, attributes: Attributes) -> None:
    """Make torch's attention modules that are given a scale of their own such ones, in place."""
    for path, values in attributes.items():
        module = model.get_submodule(path)
        if SCALE in values and type(module) is nn.MultiheadAttention:
            module.__class__ = ShrunkAttention
            # torch's encoder would compute the attention itself, with its own idea of sizes.
            module._qkv_same_embed_dim = False

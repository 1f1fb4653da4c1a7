"""Attention as one node."""

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeprune.onnx_import.registry import Call, operator

_ATTRIBUTES = frozenset({
    "is_causal", "kv_num_heads", "q_num_heads", "qk_matmul_output_mode", "scale", "softcap",
    "softmax_precision",
})  # fmt: skip


@operator("Attention")
def attention(c: Call) -> Tensor:
    """Softmax attention of the main domain (opset 23), without a cache of keys and values."""
    extra = [i for i in range(4, len(c.inputs)) if c.has(i)]
    if extra or len([name for name in c.node.outputs if name]) > 1:
        c.fail("keeps keys and values of earlier calls; export the model without its cache")
    unknown = sorted(name for name in c.node.attributes if name not in _ATTRIBUTES)
    if unknown or c.attribute("softcap", 0.0):
        what = unknown[0] if unknown else "softcap"
        c.fail(f"has {what}, which torch's attention has not; export it in single operators")
    q, k, v = (_heads(c, i) for i in range(3))
    mask = c.optional(3)
    groups = q.shape[1] != k.shape[1]
    made = F.scaled_dot_product_attention(
        q,
        k,
        v,
        mask,
        is_causal=bool(c.attribute("is_causal", 0)),
        scale=c.attribute("scale"),
        enable_gqa=groups,
    )
    if c.tensor(0).dim() == 4:
        return made
    return _joined(made)


def _heads(c: Call, index: int) -> Tensor:
    """(batch, heads, positions, features), of those or of heads and features in one."""
    x = c.tensor(index)
    if x.dim() == 4:
        return x
    count = c.attribute("q_num_heads" if index == 0 else "kv_num_heads")
    return _split_into_heads(x, count)


def _split_into_heads(x: Tensor, count: int) -> Tensor:
    """(batch, heads, positions, features) of (batch, positions, heads * features)."""
    return x.reshape(*x.shape[:-1], count, -1).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    """The inverse."""
    return x.transpose(1, 2).flatten(2)


@operator("RotaryEmbedding")
def rotary_embedding(c: Call) -> Tensor:
    """Pairs of features turned by an angle for each position."""
    given = c.tensor(0)
    x = given
    if x.dim() == 3:
        x = _split_into_heads(x, c.attribute("num_heads"))
    cosine, sine = (_angles(c, i) for i in (1, 2))
    turned = c.attribute("rotary_embedding_dim", 0) or x.shape[-1]
    part, rest = x[..., :turned], x[..., turned:]
    interleaved = bool(c.attribute("interleaved", 0))
    first, second = (part[..., 0::2], part[..., 1::2]) if interleaved else part.chunk(2, -1)
    half = first * cosine - second * sine, first * sine + second * cosine
    made = torch.stack(half, -1).flatten(-2) if interleaved else torch.cat(half, -1)
    made = torch.cat([made, rest], -1)
    return made if given.dim() == 4 else _joined(made)


def _angles(c: Call, index: int) -> Tensor:
    """Cosines or sines (batch, 1, positions, features / 2)."""
    table = c.tensor(index)
    if c.has(3):
        table = table[c.tensor(3).long()]
    turned = c.attribute("rotary_embedding_dim", 0)
    table = table[..., : turned // 2] if turned else table
    return table.unsqueeze(1)

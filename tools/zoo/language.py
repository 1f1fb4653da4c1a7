"""Language networks as they are deployed on devices, small and randomly initialised.

Each keeps the topology and the peculiar operators of its original; only the sizes are reduced.
The cases were written before any of them was run through the pruner, and none was chosen or
changed for what the pruner makes of it.
"""

import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from blocks import merge_heads, split_heads
from generic import Built, collect

CASES: dict[str, dict] = {}

VOCABULARY = 96


def tokens(length: int, size: int = VOCABULARY) -> Tensor:
    """One sentence of random token ids."""
    return torch.randint(0, size, (1, length))


def tied_embedding(dim: int) -> nn.Embedding:
    """An embedding scaled such that it can be the output layer too."""
    embedding = nn.Embedding(VOCABULARY, dim)
    nn.init.normal_(embedding.weight, std=dim**-0.5)
    return embedding


def causal_mask(length: int, window: int | None = None) -> Tensor:
    """Which keys each query may see: itself and the past, or the last `window` positions of it."""
    distance = torch.arange(length)[:, None] - torch.arange(length)[None]
    mask = distance >= 0
    return mask if window is None else mask & (distance < window)


def rotary_angles(length: int, dim: int, base: float = 10000.0) -> Tensor:
    """The rotary embedding's angles, (length, dim / 2)."""
    frequency = base ** (-torch.arange(0, dim, 2) / dim)
    return torch.arange(length)[:, None] * frequency[None]


def rotate_halves(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary embedding that pairs each channel with the one half the head away."""
    cos, sin = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def rotate_pairs(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary embedding that pairs neighbouring channels."""
    even, odd = x[..., ::2], x[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class RMSNorm(nn.Module):
    """Root mean square norm; with offset 1 the weight is stored as its distance from one."""

    def __init__(self, dim: int, offset: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((dim,), 1.0 - offset))
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return x * scale * (self.weight + self.offset)


class GatedMLP(nn.Module):
    """Gate, up and down projections, as in current language models."""

    def __init__(self, dim: int, hidden: int, activation=F.silu):
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.gate(x)) * self.up(x))


class Gemma3Layer(nn.Module):
    """Multi-query attention with normed queries and keys, between norms before and after."""

    def __init__(self, dim: int, heads: int, head_dim: int, window: int | None, length: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, heads * head_dim, bias=False)
        self.k = nn.Linear(dim, head_dim, bias=False)
        self.v = nn.Linear(dim, head_dim, bias=False)
        self.o = nn.Linear(heads * head_dim, dim, bias=False)
        self.q_norm, self.k_norm = RMSNorm(head_dim, 1.0), RMSNorm(head_dim, 1.0)
        self.pre_attention, self.post_attention = RMSNorm(dim, 1.0), RMSNorm(dim, 1.0)
        self.pre_mlp, self.post_mlp = RMSNorm(dim, 1.0), RMSNorm(dim, 1.0)
        self.mlp = GatedMLP(dim, 3 * dim, lambda x: F.gelu(x, approximate="tanh"))
        self.register_buffer("mask", causal_mask(length, window))
        base = 1e6 if window is None else 1e4
        self.register_buffer("angles", rotary_angles(length, head_dim, base))

    def attend(self, x: Tensor) -> Tensor:
        q = rotate_halves(self.q_norm(split_heads(self.q(x), self.heads)), self.angles)
        k = rotate_halves(self.k_norm(split_heads(self.k(x), 1)), self.angles)
        v = split_heads(self.v(x), 1)
        k, v = k.expand_as(q), v.expand_as(q)
        return self.o(merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.post_attention(self.attend(self.pre_attention(x)))
        return x + self.post_mlp(self.mlp(self.pre_mlp(x)))


class Gemma3(nn.Module):
    """A local and a global layer over a scaled embedding that the head shares."""

    def __init__(self, dim: int = 32, length: int = 10):
        super().__init__()
        self.embedding = tied_embedding(dim)
        self.layers = nn.ModuleList(Gemma3Layer(dim, 4, 16, w, length) for w in (4, None))
        self.norm = RMSNorm(dim, 1.0)
        self.head = nn.Linear(dim, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight
        self.scale = math.sqrt(dim)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) * self.scale
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


@collect(CASES)
def gemma3_decoder() -> Built:
    """Multi-query, QK-norm, sandwich norms with weight + 1, sliding window, tied embedding."""
    return Gemma3(), (tokens(10),)


class LatentAttention(nn.Module):
    """Low-rank queries and keys/values; a rotary part of the key that all heads share."""

    def __init__(self, dim: int, heads: int, length: int):
        super().__init__()
        self.heads, self.nope, self.rope, self.value = heads, 8, 4, 10
        self.rank = 12
        self.q_a = nn.Linear(dim, 20, bias=False)
        self.q_norm = RMSNorm(20)
        self.q_b = nn.Linear(20, heads * (self.nope + self.rope), bias=False)
        self.kv_a = nn.Linear(dim, self.rank + self.rope, bias=False)
        self.kv_norm = RMSNorm(self.rank)
        self.kv_b = nn.Linear(self.rank, heads * (self.nope + self.value), bias=False)
        self.o = nn.Linear(heads * self.value, dim, bias=False)
        self.register_buffer("mask", causal_mask(length))
        self.register_buffer("angles", rotary_angles(length, self.rope))

    def forward(self, x: Tensor) -> Tensor:
        q = split_heads(self.q_b(self.q_norm(self.q_a(x))), self.heads)
        q_nope, q_rope = q.split([self.nope, self.rope], dim=-1)
        latent, k_rope = self.kv_a(x).split([self.rank, self.rope], dim=-1)
        kv = split_heads(self.kv_b(self.kv_norm(latent)), self.heads)
        k_nope, v = kv.split([self.nope, self.value], dim=-1)
        q_rope = rotate_pairs(q_rope, self.angles)
        k_rope = rotate_pairs(k_rope.unsqueeze(1), self.angles).expand(-1, self.heads, -1, -1)
        q = torch.cat([q_nope, q_rope], dim=-1)
        k = torch.cat([k_nope, k_rope], dim=-1)
        scores = q @ k.transpose(-1, -2) / math.sqrt(self.nope + self.rope)
        scores = scores.masked_fill(~self.mask, float("-inf"))
        return self.o(merge_heads(scores.softmax(-1) @ v))


class SharedExpertMoE(nn.Module):
    """Sigmoid top-k routing with a selection-only bias, and one expert every token uses."""

    def __init__(self, dim: int, hidden: int, experts: int, active: int):
        super().__init__()
        self.router = nn.Linear(dim, experts, bias=False)
        self.register_buffer("selection_bias", 0.1 * torch.randn(experts))
        self.experts = nn.ModuleList(GatedMLP(dim, hidden) for _ in range(experts))
        self.shared = GatedMLP(dim, hidden)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        scores = self.router(x).sigmoid()
        chosen = (scores + self.selection_bias).topk(self.active, dim=-1).indices
        weights = scores.gather(-1, chosen)
        weights = 2.5 * weights / (weights.sum(-1, keepdim=True) + 1e-20)
        dense = torch.zeros_like(scores).scatter(-1, chosen, weights)
        y = self.shared(x)
        for i, expert in enumerate(self.experts):
            y = y + dense[..., i : i + 1] * expert(x)
        return y


class DeepSeekLayer(nn.Module):
    """Pre-norm latent attention and the given feed-forward."""

    def __init__(self, dim: int, length: int, feed_forward: nn.Module):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(dim), RMSNorm(dim)
        self.attention = LatentAttention(dim, 4, length)
        self.feed_forward = feed_forward

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


@collect(CASES)
def deepseek_mla_moe() -> Built:
    """Latent attention with decoupled rotary keys; a dense layer, then a shared-expert MoE."""
    dim, length = 32, 8
    return nn.Sequential(
        nn.Embedding(VOCABULARY, dim),
        DeepSeekLayer(dim, length, GatedMLP(dim, 64)),
        DeepSeekLayer(dim, length, SharedExpertMoE(dim, 24, experts=4, active=2)),
        RMSNorm(dim),
        nn.Linear(dim, VOCABULARY, bias=False),
    ), (tokens(length),)


class Retention(nn.Module):
    """Parallel multi-scale retention: decay instead of softmax, a norm per head, a swish gate."""

    def __init__(self, dim: int, heads: int, length: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, 2 * dim, bias=False)
        self.gate = nn.Linear(dim, 2 * dim, bias=False)
        self.o = nn.Linear(2 * dim, dim, bias=False)
        self.norm = nn.LayerNorm(2 * dim // heads, elementwise_affine=False)
        self.register_buffer("angles", rotary_angles(length, dim // heads))
        distance = torch.arange(length)[:, None] - torch.arange(length)[None]
        decay = torch.log(1 - 2.0 ** (-5 - torch.arange(heads)))[:, None, None]
        mask = torch.exp(distance * decay) * causal_mask(length)
        self.register_buffer("decay", mask / mask.sum(-1, keepdim=True).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        q = rotate_pairs(split_heads(self.q(x), self.heads), self.angles)
        k = split_heads(self.k(x), self.heads)
        k = rotate_pairs(k * k.shape[-1] ** -0.5, self.angles)
        scores = q @ k.transpose(-1, -2) * self.decay
        scores = scores / scores.abs().sum(-1, keepdim=True).clamp(min=1)
        y = self.norm((scores @ split_heads(self.v(x), self.heads)).transpose(1, 2))
        return self.o(F.silu(self.gate(x)) * y.flatten(2))


class RetNetLayer(nn.Module):
    """Pre-norm retention and a gated feed-forward."""

    def __init__(self, dim: int, length: int):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(dim), RMSNorm(dim)
        self.retention = Retention(dim, 4, length)
        self.mlp = GatedMLP(dim, 48, F.gelu)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.retention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


@collect(CASES)
def retnet_decoder() -> Built:
    """Decay-masked scores normalised by their absolute sum, an affine-free norm per head."""
    return nn.Sequential(
        nn.Embedding(VOCABULARY, 32),
        RetNetLayer(32, 12),
        RetNetLayer(32, 12),
        RMSNorm(32),
        nn.Linear(32, VOCABULARY, bias=False),
    ), (tokens(12),)


class TokenShift(nn.Module):
    """Mixes each token with the one before it, by one learned ratio a channel."""

    def __init__(self, dim: int):
        super().__init__()
        self.ratio = nn.Parameter(torch.rand(1, 1, dim))

    def forward(self, x: Tensor, previous: Tensor) -> Tensor:
        return x * self.ratio + previous * (1 - self.ratio)


class RWKVTimeMix(nn.Module):
    """The WKV recurrence in its numerically safe form, unrolled over the sequence."""

    def __init__(self, dim: int):
        super().__init__()
        self.shift = nn.ZeroPad2d((0, 0, 1, -1))
        self.mix_k, self.mix_v, self.mix_r = TokenShift(dim), TokenShift(dim), TokenShift(dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.receptance = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)
        self.decay = nn.Parameter(torch.linspace(-5, 1, dim))
        self.first = nn.Parameter(torch.randn(dim) * 0.5)

    def wkv(self, k: Tensor, v: Tensor) -> Tensor:
        decay = -torch.exp(self.decay)
        numerator, denominator = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0])
        largest = torch.full_like(k[:, 0], -1e38)
        outputs = []
        for t in range(k.shape[1]):
            kt, vt = k[:, t], v[:, t]
            top = torch.maximum(largest, self.first + kt)
            past, now = torch.exp(largest - top), torch.exp(self.first + kt - top)
            outputs.append((past * numerator + now * vt) / (past * denominator + now))
            top = torch.maximum(largest + decay, kt)
            past, now = torch.exp(largest + decay - top), torch.exp(kt - top)
            numerator, denominator = past * numerator + now * vt, past * denominator + now
            largest = top
        return torch.stack(outputs, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        previous = self.shift(x)
        k = self.key(self.mix_k(x, previous))
        v = self.value(self.mix_v(x, previous))
        r = torch.sigmoid(self.receptance(self.mix_r(x, previous)))
        return self.output(r * self.wkv(k, v))


class RWKVChannelMix(nn.Module):
    """A squared-ReLU feed-forward behind a receptance gate."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.shift = nn.ZeroPad2d((0, 0, 1, -1))
        self.mix_k, self.mix_r = TokenShift(dim), TokenShift(dim)
        self.key = nn.Linear(dim, hidden, bias=False)
        self.receptance = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        previous = self.shift(x)
        k = torch.square(torch.relu(self.key(self.mix_k(x, previous))))
        return torch.sigmoid(self.receptance(self.mix_r(x, previous))) * self.value(k)


class RWKVLayer(nn.Module):
    """Pre-norm time mixing and channel mixing."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.time_mix, self.channel_mix = RWKVTimeMix(dim), RWKVChannelMix(dim, 3 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.time_mix(self.norm1(x))
        return x + self.channel_mix(self.norm2(x))


@collect(CASES)
def rwkv_decoder() -> Built:
    """Token shift by a negative pad, the unrolled WKV recurrence, squared-ReLU channel mixing."""
    return nn.Sequential(
        nn.Embedding(VOCABULARY, 32),
        nn.LayerNorm(32),
        RWKVLayer(32),
        RWKVLayer(32),
        nn.LayerNorm(32),
        nn.Linear(32, VOCABULARY, bias=False),
    ), (tokens(8),)


def segment_sums(x: Tensor) -> Tensor:
    """The sum of x over (s, l] for every pair l, s of the last dimension; -inf where s > l."""
    cumulative = x.cumsum(-1)
    sums = cumulative.unsqueeze(-1) - cumulative.unsqueeze(-2)
    ones = torch.ones(x.shape[-1], x.shape[-1], dtype=torch.bool, device=x.device)
    return sums.masked_fill(~ones.tril(), float("-inf"))


class Mamba2Mixer(nn.Module):
    """The state space dual in chunks: one fused input projection, scalar decay per head."""

    def __init__(self, dim: int, heads: int = 4, head_dim: int = 16, state: int = 8):
        super().__init__()
        self.heads, self.head_dim, self.state, self.chunk = heads, head_dim, state, 4
        self.inner = heads * head_dim
        mixed = self.inner + 2 * state
        self.in_proj = nn.Linear(dim, self.inner + mixed + heads, bias=False)
        self.conv = nn.Conv1d(mixed, mixed, 4, padding=3, groups=mixed)
        self.dt_bias = nn.Parameter(torch.rand(heads) - 2)
        self.log_a = nn.Parameter(torch.log(torch.arange(1.0, heads + 1)))
        self.skip = nn.Parameter(torch.ones(heads))
        self.norm = RMSNorm(self.inner)
        self.out_proj = nn.Linear(self.inner, dim, bias=False)

    def scan(self, x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """x (batch, time, heads, dim), a (batch, time, heads), b and c (batch, time, state)."""
        batch, length = x.shape[:2]
        shape = (batch, length // self.chunk, self.chunk)
        x, b, c = x.reshape(*shape, *x.shape[2:]), b.reshape(*shape, -1), c.reshape(*shape, -1)
        a = a.reshape(*shape, -1).permute(0, 3, 1, 2)
        total = a.cumsum(-1)
        within = torch.einsum("zcln,zcsn,zhcls,zcshp->zclhp", c, b, segment_sums(a).exp(), x)
        to_end = torch.exp(total[..., -1:] - total)
        states = torch.einsum("zcln,zhcl,zclhp->zchpn", b, to_end, x)
        states = torch.cat([torch.zeros_like(states[:, :1]), states], dim=1)
        between = segment_sums(F.pad(total[..., -1], (1, 0))).exp()
        states = torch.einsum("zhdc,zchpn->zdhpn", between, states)[:, :-1]
        carried = torch.einsum("zcln,zchpn,zhcl->zclhp", c, states, total.exp())
        return (within + carried).reshape(batch, length, self.heads, self.head_dim)

    def forward(self, u: Tensor) -> Tensor:
        mixed = self.inner + 2 * self.state
        z, xbc, dt = self.in_proj(u).split([self.inner, mixed, self.heads], dim=-1)
        xbc = F.silu(self.conv(xbc.transpose(1, 2))[..., : u.shape[1]].transpose(1, 2))
        x, b, c = xbc.split([self.inner, self.state, self.state], dim=-1)
        x = x.unflatten(-1, (self.heads, self.head_dim))
        dt = F.softplus(dt + self.dt_bias)
        y = self.scan(x * dt.unsqueeze(-1), -torch.exp(self.log_a) * dt, b, c)
        y = y + self.skip.unsqueeze(-1) * x
        return self.out_proj(self.norm(y.flatten(2) * F.silu(z)))


class Mamba2(nn.Module):
    """Residual mixers between an embedding and the head that shares it."""

    def __init__(self, dim: int = 32, layers: int = 2):
        super().__init__()
        self.embedding = tied_embedding(dim)
        self.norms = nn.ModuleList(RMSNorm(dim) for _ in range(layers))
        self.mixers = nn.ModuleList(Mamba2Mixer(dim) for _ in range(layers))
        self.norm = RMSNorm(dim)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for norm, mixer in zip(self.norms, self.mixers):
            x = x + mixer(norm(x))
        return F.linear(self.norm(x), self.embedding.weight)


@collect(CASES)
def mamba2_ssd() -> Built:
    """Chunked state space dual: fused projection, einsums over segment sums, gated norm."""
    return Mamba2(), (tokens(12),)

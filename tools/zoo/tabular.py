"""Recommendation, forecasting, table, graph, control and image-text networks, small and random.

Each keeps the topology and the peculiar operators of its original; only the sizes are reduced.
The cases were written before any of them was run through the pruner, and none was chosen or
changed for what the pruner makes of it.
"""

import math
import sys
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from generic import Built, collect

CASES: dict[str, dict] = {}


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def identifiers(*shape: int, size: int = 50) -> Tensor:
    """Random category numbers."""
    return torch.randint(1, size, shape)


# --- recommendation -----------------------------------------------------------------------------


class DLRM(nn.Module):
    """Bags of embeddings that interact pairwise with the dense features' embedding."""

    def __init__(self, dense: int = 13, bags: int = 3, dim: int = 16):
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(50, dim, mode="sum") for _ in range(bags))
        for bag in self.bags:
            nn.init.uniform_(bag.weight, -(50**-0.5), 50**-0.5)
        self.bottom = nn.Sequential(mlp(dense, 32, 24, dim), nn.ReLU())
        pairs = (bags + 1) * bags // 2
        self.top = mlp(dim + pairs, 32, 20, 1)
        rows, columns = torch.tril_indices(bags + 1, bags + 1, offset=-1)
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)

    def forward(self, dense: Tensor, indices: Tensor, offsets: Tensor) -> Tensor:
        x = self.bottom(dense)
        features = [x] + [bag(indices[i], offsets[i]) for i, bag in enumerate(self.bags)]
        stacked = torch.stack(features, dim=1)
        products = torch.bmm(stacked, stacked.transpose(1, 2))
        pairs = products[:, self.rows, self.columns]
        return torch.sigmoid(self.top(torch.cat([x, pairs], dim=1)))


@collect(CASES)
def dlrm() -> Built:
    """Embedding bags with offsets, pairwise dot products, their triangle taken by indexing."""
    offsets = torch.zeros(3, 1, dtype=torch.long)
    return DLRM(), (torch.randn(1, 13), identifiers(3, 4), offsets)


class Dice(nn.Module):
    """An activation that mixes x and a scaled x by a sigmoid of the batch-normed x."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(dim, eps=1e-8, affine=False)
        self.alpha = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        p = torch.sigmoid(self.norm(x.reshape(-1, x.shape[-1]))).view(x.shape)
        return p * x + (1 - p) * self.alpha * x


class DeepInterest(nn.Module):
    """Weighs a user's history by a small network over history item and candidate."""

    def __init__(self, dim: int = 12):
        super().__init__()
        self.items = nn.Embedding(50, dim, padding_idx=0)
        self.categories = nn.Embedding(20, dim, padding_idx=0)
        self.users = nn.Embedding(30, dim)
        self.unit = nn.Sequential(
            nn.Linear(8 * dim, 32), Dice(32), nn.Linear(32, 16), Dice(16), nn.Linear(16, 1)
        )
        self.head = nn.Sequential(
            nn.Linear(7 * dim, 40), Dice(40), nn.Linear(40, 20), Dice(20), nn.Linear(20, 1)
        )

    def describe(self, item: Tensor, category: Tensor) -> Tensor:
        return torch.cat([self.items(item), self.categories(category)], dim=-1)

    def forward(
        self, user: Tensor, item: Tensor, category: Tensor, past: Tensor, past_category: Tensor
    ) -> Tensor:
        candidate = self.describe(item, category)
        history = self.describe(past, past_category)
        query = candidate.unsqueeze(1).expand_as(history)
        pair = torch.cat([query, history, query - history, query * history], dim=-1)
        weights = self.unit(pair) * (past != 0).unsqueeze(-1)
        interest = (weights * history).sum(dim=1)
        x = torch.cat([self.users(user), candidate, interest, interest * candidate], dim=-1)
        return torch.sigmoid(self.head(x))


@collect(CASES)
def din_ranker() -> Built:
    """Target attention on [q, k, q - k, q * k] without softmax, Dice, a padded history masked."""
    past = torch.cat([identifiers(1, 6), torch.zeros(1, 2, dtype=torch.long)], dim=1)
    past_category = torch.cat([identifiers(1, 6, size=20), torch.zeros(1, 2, dtype=torch.long)], 1)
    category = identifiers(1, size=20)
    return DeepInterest(), (identifiers(1, size=30), identifiers(1), category, past, past_category)


class MultiGateMoE(nn.Module):
    """Experts shared by tasks with a softmax gate each, over a deep and cross input."""

    def __init__(self, fields: int = 6, dim: int = 8, experts: int = 4, tasks: int = 2):
        super().__init__()
        width = fields * dim
        self.embedding = nn.Embedding(20 * fields, dim)
        nn.init.normal_(self.embedding.weight, std=0.3)
        self.register_buffer("starts", 20 * torch.arange(fields))
        self.cross_down = nn.ModuleList(nn.Linear(width, 10, bias=False) for _ in range(2))
        self.cross_up = nn.ModuleList(nn.Linear(10, width) for _ in range(2))
        self.experts = nn.ModuleList(
            nn.Sequential(mlp(width, 32, 24), nn.ReLU()) for _ in range(experts)
        )
        self.gates = nn.ModuleList(nn.Linear(width, experts, bias=False) for _ in range(tasks))
        self.towers = nn.ModuleList(mlp(24, 16, 1) for _ in range(tasks))

    def forward(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        start = self.embedding(fields + self.starts).flatten(1)
        x = start
        for down, up in zip(self.cross_down, self.cross_up):
            x = start * up(down(x)) + x
        experts = torch.stack([expert(x) for expert in self.experts], dim=1)
        rates = []
        for gate, tower in zip(self.gates, self.towers):
            weights = gate(x).softmax(dim=-1).unsqueeze(1)
            rates.append(torch.sigmoid(tower(torch.bmm(weights, experts).squeeze(1))))
        click, conversion = rates
        return click, click * conversion


@collect(CASES)
def mmoe_dcn_v2() -> Built:
    """Offset embedding table, low-rank cross layers, gated mixture of stacked experts per task."""
    return MultiGateMoE(), (identifiers(1, 6, size=20),)


# --- forecasting --------------------------------------------------------------------------------


class BasisBlock(nn.Module):
    """A fully connected stack whose two outputs expand in a basis: learned, or given and fixed."""

    def __init__(self, past: int, future: int, basis: Tensor | None = None, hidden: int = 32):
        super().__init__()
        self.past = past
        self.body = nn.Sequential(mlp(past, hidden, hidden, hidden), nn.ReLU())
        size = 6 if basis is None else len(basis)
        self.back = nn.Linear(hidden, size, bias=False)
        self.ahead = nn.Linear(hidden, size, bias=False)
        if basis is None:
            self.back_basis, self.ahead_basis = nn.Linear(size, past), nn.Linear(size, future)
        self.register_buffer("basis", basis)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.body(x)
        if self.basis is None:
            return self.back_basis(self.back(y)), self.ahead_basis(self.ahead(y))
        back, ahead = self.basis[:, : self.past], self.basis[:, self.past :]
        return self.back(y) @ back, self.ahead(y) @ ahead


class NBeats(nn.Module):
    """Blocks that subtract what they explain of the past and add their share of the forecast."""

    def __init__(self, past: int = 20, future: int = 5):
        super().__init__()
        time = torch.arange(past + future) / past
        trend = torch.stack([time**power for power in range(3)])
        angle = 2 * math.pi * torch.arange(1, 4)[:, None] * time
        season = torch.cat([angle.cos(), angle.sin()])
        self.blocks = nn.ModuleList(BasisBlock(past, future, b) for b in (trend, season, None))

    def forward(self, x: Tensor) -> Tensor:
        forecast = 0
        for block in self.blocks:
            back, ahead = block(x)
            x, forecast = x - back, forecast + ahead
        return forecast


@collect(CASES)
def nbeats() -> Built:
    """Doubly residual stacks with polynomial, Fourier and learned bases."""
    return NBeats(), (torch.randn(1, 20),)


class GatedResidual(nn.Module):
    """The temporal fusion transformer's residual network, with optional context and skip layer."""

    def __init__(self, inputs: int, hidden: int, outputs: int, context: int | None = None):
        super().__init__()
        self.first, self.second = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)
        self.context = nn.Linear(context, hidden, bias=False) if context else None
        self.gate = nn.Linear(hidden, 2 * outputs)
        self.skip = nn.Linear(inputs, outputs) if inputs != outputs else nn.Identity()
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        y = self.first(x)
        if self.context is not None:
            y = y + self.context(context)
        return self.norm(self.skip(x) + F.glu(self.gate(self.second(F.elu(y)))))


class GatedSkip(nn.Module):
    """Gates a sublayer's output, adds the sublayer's input, and norms."""

    def __init__(self, dim: int):
        super().__init__()
        self.gate, self.norm = nn.Linear(dim, 2 * dim), nn.LayerNorm(dim)

    def forward(self, y: Tensor, skip: Tensor) -> Tensor:
        return self.norm(skip + F.glu(self.gate(y)))


class VariableSelection(nn.Module):
    """Embeds every variable on its own and sums them by softmax weights over the variables."""

    def __init__(self, variables: int, dim: int):
        super().__init__()
        self.embed = nn.ModuleList(nn.Linear(1, dim) for _ in range(variables))
        self.refine = nn.ModuleList(GatedResidual(dim, 12, dim) for _ in range(variables))
        self.weigh = GatedResidual(variables * dim, dim, variables, context=dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        parts = [embed(x[..., i : i + 1]) for i, embed in enumerate(self.embed)]
        weights = self.weigh(torch.cat(parts, dim=-1), context).softmax(-1).unsqueeze(-2)
        refined = torch.stack([net(part) for net, part in zip(self.refine, parts)], dim=-1)
        return (weights * refined).sum(-1)


class InterpretableAttention(nn.Module):
    """Attention whose heads share one value projection and are averaged."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads, head_dim = heads, dim // heads
        self.q, self.k = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.v = nn.Linear(dim, head_dim)
        self.o = nn.Linear(head_dim, dim, bias=False)

    def forward(self, x: Tensor, ahead: int) -> Tensor:
        q = self.q(x[:, -ahead:]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k = self.k(x).unflatten(-1, (self.heads, -1)).permute(0, 2, 3, 1)
        scores = q @ k / math.sqrt(q.shape[-1])
        length = x.shape[1]
        future = torch.ones(ahead, length, dtype=torch.bool).triu(length - ahead + 1)
        weights = scores.masked_fill(future, -1e9).softmax(-1)
        return self.o((weights @ self.v(x).unsqueeze(1)).mean(dim=1))


class TemporalFusion(nn.Module):
    """Variable selection, LSTM encoder and decoder under a static context, attention, quantiles."""

    def __init__(self, dim: int = 16, past: int = 3, known: int = 2):
        super().__init__()
        self.static = nn.Embedding(20, dim)
        self.contexts = nn.ModuleList(GatedResidual(dim, dim, dim) for _ in range(4))
        self.select_past = VariableSelection(past, dim)
        self.select_known = VariableSelection(known, dim)
        self.encoder = nn.LSTM(dim, dim, batch_first=True)
        self.decoder = nn.LSTM(dim, dim, batch_first=True)
        self.after_lstm, self.after_attention = GatedSkip(dim), GatedSkip(dim)
        self.enrich = GatedResidual(dim, 20, dim, context=dim)
        self.attention = InterpretableAttention(dim, 4)
        self.feed_forward, self.last = GatedResidual(dim, 24, dim), GatedSkip(dim)
        self.quantiles = nn.Linear(dim, 3)

    def forward(self, group: Tensor, past: Tensor, known: Tensor) -> Tensor:
        ahead = known.shape[1]
        static = self.static(group)
        select, enrich, hidden, cell = (net(static) for net in self.contexts)
        past = self.select_past(past, select.unsqueeze(1))
        known = self.select_known(known, select.unsqueeze(1))
        encoded, state = self.encoder(past, (hidden.unsqueeze(0), cell.unsqueeze(0)))
        decoded, _ = self.decoder(known, state)
        x = torch.cat([encoded, decoded], dim=1)
        x = self.after_lstm(x, torch.cat([past, known], dim=1))
        enriched = self.enrich(x, enrich.unsqueeze(1))
        y = self.after_attention(self.attention(enriched, ahead), enriched[:, -ahead:])
        return self.quantiles(self.last(self.feed_forward(y), x[:, -ahead:]))


@collect(CASES)
def temporal_fusion() -> Built:
    """Variable selection, gated residuals, LSTMs with given states, one value for all heads."""
    return TemporalFusion(), (identifiers(1, size=20), torch.randn(1, 10, 3), torch.randn(1, 4, 2))


class PatchLayer(nn.Module):
    """A post-norm transformer layer with batch norm, that passes its attention scores on."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.o = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, 48), nn.GELU(), nn.Linear(48, dim))
        self.norm1, self.norm2 = nn.BatchNorm1d(dim), nn.BatchNorm1d(dim)

    def forward(self, x: Tensor, earlier: Tensor | None) -> tuple[Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if earlier is not None:
            scores = scores + earlier
        y = self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        x = self.norm1((x + y).transpose(1, 2)).transpose(1, 2)
        x = self.norm2((x + self.feed_forward(x)).transpose(1, 2)).transpose(1, 2)
        return x, scores


class PatchTST(nn.Module):
    """Reversible instance norm, overlapping patches, every channel a series of its own."""

    def __init__(self, channels: int = 3, past: int = 32, future: int = 6, dim: int = 32):
        super().__init__()
        self.patch, self.stride = 8, 4
        patches = (past - self.patch) // self.stride + 2
        self.gain = nn.Parameter(torch.ones(channels, 1))
        self.offset = nn.Parameter(torch.zeros(channels, 1))
        self.pad = nn.ReplicationPad1d((0, self.stride))
        self.embed = nn.Linear(self.patch, dim)
        self.position = nn.Parameter(0.02 * torch.randn(patches, dim))
        self.layers = nn.ModuleList(PatchLayer(dim, 4) for _ in range(2))
        self.head = nn.Sequential(nn.Flatten(start_dim=-2), nn.Linear(patches * dim, future))

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        mean = x.mean(dim=-1, keepdim=True)
        std = torch.sqrt(x.var(dim=-1, keepdim=True, unbiased=False) + 1e-5)
        x = self.pad((x - mean) / std * self.gain + self.offset)
        x = x.unfold(-1, self.patch, self.stride)
        batch, channels = x.shape[:2]
        x = self.embed(x).reshape(batch * channels, -1, self.position.shape[-1]) + self.position
        scores = None
        for layer in self.layers:
            x, scores = layer(x, scores)
        y = self.head(x.view(batch, channels, *x.shape[1:]))
        y = (y - self.offset) / (self.gain + 1e-10) * std + mean
        return y.transpose(1, 2)


@collect(CASES)
def patch_tst() -> Built:
    """Patches by unfold, channels folded into the batch, batch norm, attention scores passed on."""
    return PatchTST(), (torch.randn(1, 32, 3),)


# --- tables and graphs --------------------------------------------------------------------------


class TableLayer(nn.Module):
    """A pre-norm layer with ReGLU; the first of a model has no attention norm."""

    def __init__(self, dim: int, heads: int, first: bool):
        super().__init__()
        self.attention_norm = nn.Identity() if first else nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm = nn.LayerNorm(dim)
        self.up, self.down = nn.Linear(dim, 80), nn.Linear(40, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention_norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        value, gate = self.up(self.norm(x)).chunk(2, dim=-1)
        return x + self.down(value * torch.relu(gate))


class FTTransformer(nn.Module):
    """A token for every feature of a table and one that is read out."""

    def __init__(self, numeric: int = 5, sizes: tuple[int, ...] = (7, 4, 9), dim: int = 32):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(numeric, dim))
        self.bias = nn.Parameter(torch.randn(numeric + len(sizes), dim))
        self.table = nn.Embedding(sum(sizes), dim)
        self.register_buffer("starts", torch.tensor([0, *sizes[:-1]]).cumsum(0))
        self.readout = nn.Parameter(torch.randn(1, 1, dim))
        self.layers = nn.Sequential(*(TableLayer(dim, 4, i == 0) for i in range(2)))
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.ReLU(), nn.Linear(dim, 3))

    def forward(self, numeric: Tensor, categories: Tensor) -> Tensor:
        x = numeric.unsqueeze(-1) * self.weight
        x = torch.cat([x, self.table(categories + self.starts)], dim=1) + self.bias
        x = torch.cat([x, self.readout.expand(x.shape[0], -1, -1)], dim=1)
        return self.head(self.layers(x)[:, -1])


@collect(CASES)
def ft_transformer() -> Built:
    """Numeric features times a matrix as tokens, an appended readout token, ReGLU by chunk."""
    return FTTransformer(), (torch.randn(1, 5), torch.tensor([[3, 1, 8]]))


class GraphAttention(nn.Module):
    """Additive attention over a dense adjacency matrix; heads concatenated or averaged."""

    def __init__(self, inputs: int, outputs: int, heads: int, concatenate: bool):
        super().__init__()
        self.heads, self.concatenate = heads, concatenate
        self.project = nn.Linear(inputs, heads * outputs, bias=False)
        self.source = nn.Parameter(torch.randn(heads, outputs) / math.sqrt(outputs))
        self.target = nn.Parameter(torch.randn(heads, outputs) / math.sqrt(outputs))
        self.bias = nn.Parameter(torch.zeros(heads * outputs if concatenate else outputs))
        self.skip = nn.Linear(inputs, len(self.bias), bias=False)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        nodes = self.project(x).view(*x.shape[:2], self.heads, -1)
        source = (nodes * self.source).sum(-1).transpose(1, 2)
        target = (nodes * self.target).sum(-1).transpose(1, 2)
        scores = F.leaky_relu(target.unsqueeze(-1) + source.unsqueeze(-2), 0.2)
        scores = torch.where(adjacency.unsqueeze(1) > 0, scores, torch.full_like(scores, -9e15))
        y = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), nodes)
        y = y.flatten(2) if self.concatenate else y.mean(dim=2)
        return y + self.bias + self.skip(x)


class GraphNetwork(nn.Module):
    """Two attention layers, a GraphSAGE and a GCN layer, and pooled graph features."""

    def __init__(self, features: int = 10, classes: int = 4):
        super().__init__()
        self.attention1 = GraphAttention(features, 8, 4, concatenate=True)
        self.attention2 = GraphAttention(32, 20, 4, concatenate=False)
        self.own, self.neighbours = nn.Linear(20, 24), nn.Linear(20, 24, bias=False)
        self.convolve = nn.Linear(24, 28, bias=False)
        self.bias = nn.Parameter(torch.zeros(28))
        self.node_head, self.graph_head = nn.Linear(28, classes), mlp(2 * 28, 16, 2)

    def forward(self, x: Tensor, adjacency: Tensor) -> tuple[Tensor, Tensor]:
        x = F.elu(self.attention1(x, adjacency))
        x = F.elu(self.attention2(x, adjacency))
        degree = adjacency.sum(-1, keepdim=True)
        x = self.own(x) + self.neighbours(adjacency @ x / degree)
        x = torch.relu(F.normalize(x, dim=-1))
        scale = degree.rsqrt()
        normalised = adjacency * scale * scale.transpose(1, 2)
        x = torch.relu(normalised @ self.convolve(x) + self.bias)
        pooled = torch.cat([x.mean(dim=1), x.amax(dim=1)], dim=-1)
        return self.node_head(x), self.graph_head(pooled)


@collect(CASES)
def graph_attention() -> Built:
    """Dense GAT with summed products per head, GraphSAGE with unit rows, GCN, mean and max pool."""
    adjacency = (torch.rand(1, 9, 9) < 0.3).float()
    adjacency = (adjacency + adjacency.transpose(1, 2) + torch.eye(9) > 0).float()
    return GraphNetwork(), (torch.randn(1, 9, 10), adjacency)


# --- control ------------------------------------------------------------------------------------


class CausalLayer(nn.Module):
    """A GPT-2 layer: one fused projection, tanh GELU, pre-norm."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.o = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norm1(x)).split(x.shape[-1], dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class DecisionTransformer(nn.Module):
    """Returns, states and actions interleaved as tokens; each kind's outputs taken apart again."""

    def __init__(self, state: int = 11, action: int = 3, dim: int = 32, steps: int = 20):
        super().__init__()
        self.time = nn.Embedding(steps, dim)
        self.embed_return = nn.Linear(1, dim)
        self.embed_state, self.embed_action = nn.Linear(state, dim), nn.Linear(action, dim)
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.Sequential(CausalLayer(dim, 4), CausalLayer(dim, 4), nn.LayerNorm(dim))
        self.predict_state, self.predict_return = nn.Linear(dim, state), nn.Linear(dim, 1)
        self.predict_action = nn.Sequential(nn.Linear(dim, action), nn.Tanh())

    def forward(
        self, returns: Tensor, states: Tensor, actions: Tensor, steps: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, length = steps.shape
        time = self.time(steps)
        kinds = (self.embed_return(returns), self.embed_state(states), self.embed_action(actions))
        x = torch.stack([kind + time for kind in kinds], dim=1)
        x = self.norm(x.permute(0, 2, 1, 3).reshape(batch, 3 * length, -1))
        x = self.layers(x).reshape(batch, length, 3, -1).permute(0, 2, 1, 3)
        after_state, after_action = x[:, 1], x[:, 2]
        return (
            self.predict_action(after_state),
            self.predict_state(after_action),
            self.predict_return(after_action),
        )


@collect(CASES)
def decision_transformer() -> Built:
    """Three kinds of token interleaved by stack, permute and reshape, taken apart by index."""
    steps = torch.arange(7, 12).unsqueeze(0)
    return DecisionTransformer(), (
        torch.randn(1, 5, 1),
        torch.randn(1, 5, 11),
        torch.randn(1, 5, 3),
        steps,
    )


class NormedGRUCell(nn.Module):
    """Dreamer's GRU cell: one projection of input and state, layer norm, three gates."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.project = nn.Linear(inputs + hidden, 3 * hidden, bias=False)
        self.norm = nn.LayerNorm(3 * hidden)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        parts = self.norm(self.project(torch.cat([x, state], dim=-1)))
        reset, candidate, update = parts.chunk(3, dim=-1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        update = torch.sigmoid(update - 1)
        return update * candidate + (1 - update) * state


def normed_conv(inputs: int, outputs: int) -> nn.Sequential:
    """A convolution of stride two, with group norm of one group."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
        nn.GroupNorm(1, outputs),
        nn.SiLU(),
    )


class WorldModelPolicy(nn.Module):
    """Image encoder, recurrent state with a categorical part, tanh-Gaussian actor, critic."""

    def __init__(self, actions: int = 3, hidden: int = 32, groups: int = 4, classes: int = 6):
        super().__init__()
        self.groups, self.classes, self.hidden = groups, classes, hidden
        self.encoder = nn.Sequential(normed_conv(3, 8), normed_conv(8, 12), nn.Flatten())
        latent = groups * classes
        self.join = nn.Sequential(nn.Linear(latent + actions, 24), nn.LayerNorm(24), nn.SiLU())
        self.cell = NormedGRUCell(24, hidden)
        self.posterior = mlp(hidden + 12 * 16, 28, latent)
        self.actor = mlp(hidden + latent, 36, 2 * actions)
        self.critic_cell = nn.LSTMCell(hidden + latent, 20)
        self.critic = nn.Linear(20, 1)

    def forward(self, images: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        batch, length = actions.shape[:2]
        encoded = self.encoder(images.flatten(0, 1)).unflatten(0, (batch, length))
        state = encoded.new_zeros(batch, self.hidden)
        latent = encoded.new_zeros(batch, self.groups * self.classes)
        memory = None
        for t in range(length):
            state = self.cell(self.join(torch.cat([latent, actions[:, t]], dim=-1)), state)
            logits = self.posterior(torch.cat([state, encoded[:, t]], dim=-1))
            grid = logits.unflatten(-1, (self.groups, self.classes))
            probabilities = 0.99 * grid.softmax(-1) + 0.01 / self.classes
            chosen = F.one_hot(probabilities.argmax(-1), self.classes)
            latent = chosen.to(logits.dtype).flatten(1)
            memory = self.critic_cell(torch.cat([state, latent], dim=-1), memory)
        mean, spread = self.actor(torch.cat([state, latent], dim=-1)).chunk(2, dim=-1)
        spread = F.softplus(spread.clamp(-5, 2)) + 0.1
        return torch.tanh(mean), spread, self.critic(memory[0]), probabilities


@collect(CASES)
def dreamer_policy() -> Built:
    """Layer-normed GRU cell, one-hot latents by argmax, LSTM cell unrolled, mean and spread."""
    return WorldModelPolicy(), (torch.randn(1, 3, 3, 16, 16), torch.randn(1, 3, 3))


# --- image and text -----------------------------------------------------------------------------


class AntialiasedBottleneck(nn.Module):
    """CLIP's bottleneck: average pooling does the striding, in the body and in the shortcut."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(width, 2 * width, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(2 * width)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(stride), nn.Conv2d(inputs, 2 * width, 1, bias=False)
        )
        self.shortcut_norm = nn.BatchNorm2d(2 * width)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.pool(torch.relu(self.norm2(self.conv2(y))))
        return torch.relu(self.norm3(self.conv3(y)) + self.shortcut_norm(self.shortcut(x)))


class AttentionPool(nn.Module):
    """Attention with the mean of the feature map as the only query."""

    def __init__(self, dim: int, positions: int, heads: int, outputs: int):
        super().__init__()
        self.heads = heads
        self.position = nn.Parameter(torch.randn(positions + 1, 1, dim) / dim**0.5)
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.o = nn.Linear(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(dim=0, keepdim=True), x]) + self.position
        length, batch, dim = x.shape
        shape = (batch * self.heads, dim // self.heads)
        q = self.q(x[:1]).view(1, *shape).transpose(0, 1)
        k = self.k(x).view(length, *shape).transpose(0, 1)
        v = self.v(x).view(length, *shape).transpose(0, 1)
        weights = torch.bmm(q * shape[-1] ** -0.5, k.transpose(1, 2)).softmax(-1)
        return self.o(torch.bmm(weights, v).transpose(0, 1).reshape(batch, dim))


class QuickGELU(nn.Module):
    """The sigmoid approximation of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class TextLayer(nn.Module):
    """CLIP's text layer: time-first attention module under a float mask."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), QuickGELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.norm2(x))


class ImageTextEncoder(nn.Module):
    """A residual network and a text transformer whose unit-length outputs are compared."""

    def __init__(self, dim: int = 32, joint: int = 24, length: int = 8, vocabulary: int = 96):
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AvgPool2d(2),
            AntialiasedBottleneck(16, 12, 1),
            AntialiasedBottleneck(24, 16, 2),
            AttentionPool(32, 16, 4, joint),
        )
        self.embedding = nn.Embedding(vocabulary, dim)
        self.position = nn.Parameter(0.01 * torch.randn(length, dim))
        self.layers = nn.ModuleList(TextLayer(dim, 4) for _ in range(2))
        self.norm = nn.LayerNorm(dim)
        self.projection = nn.Parameter(torch.randn(dim, joint) * dim**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        mask = torch.full((length, length), float("-inf")).triu(1)
        self.register_buffer("mask", mask)

    def encode_text(self, ids: Tensor) -> Tensor:
        x = (self.embedding(ids) + self.position).permute(1, 0, 2)
        for layer in self.layers:
            x = layer(x, self.mask)
        x = self.norm(x.permute(1, 0, 2))
        return x[torch.arange(x.shape[0]), ids.argmax(dim=-1)] @ self.projection

    def forward(self, image: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image, text = self.image(image), self.encode_text(ids)
        image = image / image.norm(dim=-1, keepdim=True)
        text = text / text.norm(dim=-1, keepdim=True)
        return self.log_scale.exp() * image @ text.t(), image, text


@collect(CASES)
def clip_dual_encoder() -> Built:
    """Anti-aliased ResNet with attention pool, text read at the end token, scaled cosine."""
    ids = torch.tensor([[94, 5, 17, 42, 95, 0, 0, 0]])
    return ImageTextEncoder(), (torch.randn(1, 3, 32, 32), ids)

"""Small networks, each with something that makes pruning hard."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Case = tuple[nn.Module, tuple[Tensor, ...]]
CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    """Register a network under its function's name, with generic weights."""

    def build() -> Case:
        torch.manual_seed(0)
        model, inputs = make()
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() == 1:
                    p.add_(torch.randn_like(p) * 0.1)
            for b in model.buffers():
                if b.is_floating_point():
                    b.add_(torch.rand_like(b) * 0.3)
        return model.eval(), inputs

    CASES[make.__name__] = build
    return build


IMAGE = (torch.randn(1, 3, 8, 8),)


class ResidualBlock(nn.Module):
    def __init__(self, i: int, o: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(i, o, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(o)
        self.conv2 = nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(o)
        self.pad = (o - i) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.pad:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(y + x)


@case
def residual_stages() -> Case:
    """Zero-padded shortcuts: the channels of two stages overlap."""
    body = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), ResidualBlock(6, 6), ResidualBlock(6, 10, 2)
    )
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 4)), IMAGE


class Encoder(nn.Module):
    def __init__(self, width: int = 12, heads: int = 3, fused: bool = True) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.embed = nn.Embedding(20, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width)
        self.v, self.o = nn.Linear(width, width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 20), nn.Linear(20, width)
        self.head = nn.Linear(width, 5)

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        y = self.norm1(x)
        q, k, v = self.split(self.q(y)), self.split(self.k(y)), self.split(self.v(y))
        if self.fused:
            a = F.scaled_dot_product_attention(q, k, v)
        else:
            a = (q @ k.transpose(-1, -2) * 0.5).softmax(-1) @ v
        x = x + self.o(a.transpose(1, 2).flatten(2))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x)


@case
def encoder() -> Case:
    return Encoder(), (torch.randint(0, 20, (1, 7)),)


@case
def eager_encoder() -> Case:
    return Encoder(fused=False), (torch.randint(0, 20, (1, 7)),)


class GroupedQueries(nn.Module):
    """Six heads of queries share two of keys and values, turned by position and normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv = nn.Embedding(20, 12), nn.Linear(12, 40)
        self.norm = nn.RMSNorm(4)
        self.o, self.head = nn.Linear(24, 12), nn.Linear(12, 5)
        self.register_buffer("speed", torch.tensor([1.0, 0.1]))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k, v = (
            y.view(*ids.shape, -1, 4).transpose(1, 2) for y in self.qkv(x).split([24, 8, 8], -1)
        )
        angle = torch.outer(torch.arange(ids.shape[1]).float(), self.speed)
        cos, sin = (torch.cat([f(angle)] * 2, -1) for f in (torch.cos, torch.sin))

        def turned(y: Tensor) -> Tensor:
            return y * cos + torch.cat([-y[..., 2:], y[..., :2]], -1) * sin

        q, k = turned(self.norm(q)), turned(self.norm(k))
        k, v = k.repeat_interleave(3, 1), v.repeat_interleave(3, 1)
        a = F.scaled_dot_product_attention(q, k, v)
        return self.head(x + self.o(a.transpose(1, 2).flatten(2)))


@case
def grouped_queries() -> Case:
    return GroupedQueries(), (torch.randint(0, 20, (1, 7)),)


@case
def given_head_count() -> Case:
    """One bias per head comes with the input: heads stay, and may be narrowed."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(6, 12)
            self.o = nn.Linear(12, 3)

        def forward(self, x: Tensor, bias: Tensor) -> Tensor:
            q, k, v = (f(x).view(1, 5, 3, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
            a = ((q @ k.transpose(-1, -2)) / 2 + bias).softmax(-1) @ v
            return self.o(a.transpose(1, 2).flatten(2))

    return Net(), (torch.randn(1, 5, 6), torch.randn(1, 3, 5, 5))


@case
def one_head() -> Case:
    return Encoder(heads=1, fused=False), (torch.randint(0, 20, (1, 7)),)


@case
def packed_single_head() -> Case:
    """The slots of a packed projection lie beside a single head."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.o, self.head = nn.Linear(6, 24), nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).view(1, 5, 3, 1, 8).permute(2, 0, 3, 1, 4).unbind(0)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, 5, 8)
            return self.head(x + self.o(y))

    return Net(), (torch.randn(1, 5, 6),)


@case
def spatial_attention() -> Case:
    """A mean over channels that is data, not a statistic."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.s = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)
            self.b, self.head = nn.Conv2d(8, 6, 1), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            y = y * self.s(y.mean(1, keepdim=True)).sigmoid()
            return self.head(F.relu(self.b(y)).mean((2, 3)))

    return Net(), IMAGE


@case
def shifted_channels() -> Case:
    """Channels are rolled: positions are counted."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 9), nn.Linear(9, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(F.relu(self.b(torch.roll(self.a(x), 2, -1))))

    return Net(), (torch.randn(2, 4),)


@case
def constant_index() -> Case:
    """A constant index reads a prunable dimension."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("order", torch.tensor([7, 0, 3, 3, 5, 1]))
            self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(6, 6), nn.Linear(8, 6)
            self.d = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.a(x))
            return self.d(self.b(y[:, self.order]).sigmoid() + self.c(y[:, ::2].repeat(1, 2)))

    return Net(), (torch.randn(2, 4),)


@case
def constant_written_in_place() -> Case:
    """A constant that every call fills anew."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            scale = torch.zeros(6)
            scale[torch.tensor([1, 3])] += 2.0
            y = self.a(x) * scale
            total = torch.zeros(2, 6)
            total[:, 1:4] = y[:, 1:4]
            return self.b(total + y)

    return Net(), (torch.randn(2, 4),)


@case
def constants_among_features() -> Case:
    """Removed features are not zero: sigmoid, and an added constant."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 10), nn.Linear(10, 6)
            self.c = nn.Linear(6, 3)
            self.register_buffer("shift", torch.arange(10.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.a(x).sigmoid() + self.shift).exp())

    return Net(), (torch.randn(2, 4),)


@case
def stacked_experts() -> Case:
    """Weights of several experts in one tensor, mixed by a softmax."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.gate = nn.Linear(4, 6), nn.Linear(6, 3)
            self.w = nn.Parameter(torch.randn(3, 6, 5))
            self.c = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.a(x))
            mixed = torch.einsum("ne,nd,edk->nk", self.gate(y).softmax(-1), y, self.w)
            return self.c(mixed)

    return Net(), (torch.randn(2, 4),)


@case
def norm_by_hand() -> Case:
    """A norm over channels by the operator that gives spread and mean at once."""

    class ChannelNorm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            spread, mean = torch.var_mean(x, 1, keepdim=True, correction=0)
            return (x - mean) * torch.rsqrt(spread + 1e-5)

    return nn.Sequential(
        nn.Conv2d(3, 12, 3), ChannelNorm(), nn.Conv2d(12, 6, 1), nn.Flatten(), nn.Linear(216, 3)
    ), IMAGE


@case
def standardised_weight() -> Case:
    """A convolution whose weight has mean 0 and deviation 1 over what it reads."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3)
            self.head = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            weight = self.conv.weight
            spread, mean = torch.var_mean(weight, (1, 2, 3), keepdim=True)
            weight = (weight - mean) * torch.rsqrt(spread + 1e-5)
            y = F.relu(F.conv2d(F.relu(self.stem(x)), weight, self.conv.bias))
            return self.head(y.mean((2, 3)))

    return Net(), IMAGE


@case
def standardised_weight_by_parts() -> Case:
    """The same by a mean and a deviation of its own."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.lin = nn.Linear(5, 8), nn.Linear(8, 6)
            self.head = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            weight = self.lin.weight
            weight = weight - weight.mean(1, keepdim=True)
            weight = weight / (weight.std(1, keepdim=True) + 1e-5)
            return self.head(F.relu(F.linear(F.relu(self.stem(x)), weight, self.lin.bias)))

    return Net(), (torch.randn(2, 5),)


@case
def threshold_by_spread() -> Case:
    """Activations count from so many deviations above their mean, which normalises nothing."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 6)
            self.c = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            y = F.relu(y - (y.mean(-1, keepdim=True) + 0.3 * y.std(-1, keepdim=True)))
            return self.c(F.relu(self.b(y)))

    return Net(), (torch.randn(2, 4),)


@case
def statistics_of_single_channels() -> Case:
    """They run over features that lie elsewhere, and over the inputs of a standardised weight."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm = nn.Linear(4, 8), nn.InstanceNorm1d(3)
            self.b, self.c = nn.Linear(8, 6), nn.Conv1d(3, 5, 1)
            self.d = nn.Conv1d(5, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.c(self.b(self.norm(self.a(x))))
            weight = F.batch_norm(self.c.weight.view(1, 5, 3), None, None, training=True)
            return self.d(F.relu(y + F.conv1d(x[..., :1], weight.view(5, 3, 1))))

    return Net(), (torch.randn(2, 3, 4),)


@case
def experts_apart() -> Case:
    """A mixture whose router stays: an expert that loses all of its units is gone."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.head = nn.Linear(4, 3), nn.Linear(4, 2)
            self.experts = nn.ModuleList(
                nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4)) for _ in range(3)
            )

        def forward(self, x: Tensor) -> Tensor:
            gate = self.gate(x).softmax(-1)
            best, chosen = gate.topk(2)
            weights = torch.zeros_like(gate).scatter(-1, chosen, best)
            total = torch.zeros_like(x)
            for number, expert in enumerate(self.experts):
                total = total + weights[:, number : number + 1] * expert(x)
            return self.head(total)

    return Net(), (torch.randn(2, 4),)


class Experts(nn.Module):
    """Some of five experts in one tensor for each row, as a library's mixtures compute them.

    ``mixing`` makes weights of the logits of all experts before the best are chosen, or of those
    of the chosen.
    """

    def __init__(self, chosen: int, mixing: str) -> None:
        super().__init__()
        # Only the library's own takes float32 of any width.
        pytest.importorskip("transformers.integrations.moe")
        self.chosen, self.mixing = chosen, mixing
        self.inner, self.gate = nn.Linear(4, 6), nn.Linear(6, 5, bias=mixing == "after")
        self.up = nn.Parameter(torch.randn(5, 7, 6))
        self.bias = nn.Parameter(torch.randn(5, 7))
        self.down = nn.Parameter(torch.randn(5, 7, 3))

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.gate(x)
        if self.mixing == "before":
            best, chosen = logits.softmax(-1).topk(self.chosen)
            return best / best.sum(-1, keepdim=True), chosen
        best, chosen = logits.topk(self.chosen)
        return best.softmax(-1), chosen

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.inner(x))
        best, chosen = self.route(x)
        number, place = chosen.reshape(-1).sort()
        counts = torch.histc(number.float(), bins=5, min=0, max=4)
        ends = counts.cumsum(0, dtype=torch.int32)
        grouped = torch.ops.transformers.grouped_mm_fallback
        y = grouped(x[place // self.chosen], self.up.transpose(1, 2), ends) + self.bias[number]
        y = grouped(F.gelu(y), self.down, ends) * best.reshape(-1)[place].unsqueeze(-1)
        back = torch.empty_like(place)
        back[place] = torch.arange(len(place))
        return y[back].view(len(x), self.chosen, 3).sum(1)


@case
def chosen_experts() -> Case:
    """The best two by a softmax over all."""
    return Experts(2, "before"), (torch.randn(6, 4),)


@case
def chosen_experts_by_logits() -> Case:
    """The best three by logits with a bias."""
    return Experts(3, "after"), (torch.randn(6, 4),)


@case
def unknown_operator() -> Case:
    """A Fourier transform over features has no rule; what is behind it has."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.fft.fft(self.a(x), dim=-1).real
            return self.c(F.relu(self.b(y)))

    return Net(), (torch.randn(2, 4),)


@case
def squeeze_and_split() -> Case:
    """Depthwise and grouped convolutions, gates, chunks and a concatenation."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.depthwise = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
            self.down, self.up = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
            self.grouped, self.norm = nn.Conv2d(8, 12, 1, groups=4), nn.GroupNorm(4, 12)
            self.left, self.right = nn.Conv2d(6, 5, 1), nn.Conv2d(6, 4, 1)
            self.head = nn.Linear(9, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.depthwise(F.relu(self.stem(x)))
            y = y * self.up(F.relu(self.down(F.adaptive_avg_pool2d(y, 1)))).sigmoid()
            a, b = self.norm(self.grouped(y)).chunk(2, 1)
            return self.head(torch.cat([self.left(a), F.relu(self.right(b))], 1).mean((2, 3)))

    return Net(), IMAGE


@case
def normalised_queries() -> Case:
    """Cosine attention: a norm is expanded over the features it came from."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8)
            self.o = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            def heads(y: Tensor) -> Tensor:
                return y.view(1, 5, 4, 2).transpose(1, 2)

            q, k = F.normalize(heads(self.q(x)), dim=-1), F.normalize(heads(self.k(x)), dim=-1)
            a = (q @ k.transpose(-1, -2)).softmax(-1) @ heads(self.v(x))
            return self.o(a.transpose(1, 2).flatten(2))

    return Net(), (torch.randn(1, 5, 6),)


@case
def token_mixing() -> Case:
    """A weight over positions: channels pass through it, its own hidden units can go."""

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(4, 8)
            self.norm = nn.LayerNorm(8)
            self.up = nn.Linear(6, 10)
            self.down = nn.Linear(10, 6)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            y = self.norm(x).transpose(1, 2)
            x = x + self.down(F.gelu(self.up(y))).transpose(1, 2)
            return self.head(x.mean(1))

    return Mixer(), (torch.randn(2, 6, 4),)


@case
def spatial_gate() -> Case:
    """Half of the channels gate the other half, after a convolution over positions (gMLP)."""

    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(4, 12)
            self.norm = nn.LayerNorm(6)
            self.mix = nn.Conv1d(5, 5, 1)
            self.down = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            u, v = F.gelu(self.up(x)).chunk(2, -1)
            return self.down(u * self.mix(self.norm(v)))

    return Gate(), (torch.randn(2, 5, 4),)


@case
def state_space() -> Case:
    """A state of channels by entries: both can go, neither with the other."""

    class Scan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into = nn.Linear(4, 6)
            self.step = nn.Linear(6, 6)
            self.read_write = nn.Linear(6, 10)
            self.decay = nn.Parameter(torch.randn(6, 5))
            self.out = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = F.silu(self.into(x))
            write, read = self.read_write(x).chunk(2, -1)
            step = F.softplus(self.step(x))
            state = torch.zeros(x.shape[0], 6, 5)
            found = []
            for t in range(x.shape[1]):
                keep = torch.exp(-step[:, t, :, None] * torch.exp(self.decay))
                state = keep * state + (step[:, t] * x[:, t])[:, :, None] * write[:, t, None, :]
                found.append((state * read[:, t, None, :]).sum(-1))
            return self.out(torch.stack(found, 1))

    return Scan(), (torch.randn(2, 3, 4),)


@case
def similarity() -> Case:
    """A normalised dot product of two towers: what goes from both adds nothing."""

    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 9))
            self.second = nn.Linear(3, 9)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            a, b = F.normalize(self.first(x), dim=-1), F.normalize(self.second(y), dim=-1)
            return (a * b).sum(-1) + (a * b).mean(-1)

    return Towers(), (torch.randn(2, 4), torch.randn(2, 3))


@case
def low_rank_update() -> Case:
    """A weight that is computed of others keeps their dimensions."""

    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 8)
            self.weight = nn.Parameter(torch.randn(6, 8))
            self.up = nn.Parameter(torch.randn(6, 2))
            self.down = nn.Parameter(torch.randn(2, 8))
            self.last = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight + 0.5 * self.up @ self.down
            return self.last(F.relu(F.linear(F.relu(self.first(x)), weight)))

    return LowRank(), (torch.randn(2, 4),)


@case
def positive_features() -> Case:
    """Linear attention with elu + 1: a feature without weights still adds to the sum."""

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(4, 5)
            self.out = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            q, k = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1
            return self.out(q @ (k.transpose(1, 2) @ self.v(x)))

    return Linear(), (torch.randn(2, 5, 4),)


@case
def unrolled_cell() -> Case:
    """The units of a cell go from every step at once."""

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(4, 6)
            self.lstm = nn.LSTMCell(6, 5)
            self.head = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            h, a, b = (torch.zeros(x.shape[0], size) for size in (6, 5, 5))
            for t in range(x.shape[1]):
                h = self.cell(x[:, t], h)
                a, b = self.lstm(h, (a, b))
            return self.head(a)

    return Steps(), (torch.randn(2, 3, 4),)

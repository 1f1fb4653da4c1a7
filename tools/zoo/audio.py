"""Audio networks as they are deployed on devices, small and randomly initialised.

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
from torch.nn.utils.parametrizations import weight_norm

sys.path.insert(0, str(Path(__file__).resolve().parent))

from blocks import merge_heads, split_heads
from generic import Built, collect
from language import VOCABULARY, tokens

CASES: dict[str, dict] = {}


# --- speech recognition -------------------------------------------------------------------------


class RelativeAttention(nn.Module):
    """Transformer-XL attention: two query biases, position scores shifted by pad and view."""

    def __init__(self, dim: int, heads: int, length: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.position = nn.Linear(dim, dim, bias=False)
        self.o = nn.Linear(dim, dim)
        self.u = nn.Parameter(torch.randn(heads, dim // heads) * 0.1)
        self.w = nn.Parameter(torch.randn(heads, dim // heads) * 0.1)
        distance = torch.arange(length - 1, -length, -1.0)[:, None]
        angle = distance * 10000.0 ** (-torch.arange(0, dim, 2) / dim)
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
        self.register_buffer("table", table.unsqueeze(0))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q = self.q(x).view(batch, length, self.heads, -1)
        k, v = split_heads(self.k(x), self.heads), split_heads(self.v(x), self.heads)
        p = split_heads(self.position(self.table), self.heads)
        content = (q + self.u).transpose(1, 2) @ k.transpose(-1, -2)
        position = (q + self.w).transpose(1, 2) @ p.transpose(-1, -2)
        shifted = F.pad(position, (1, 0)).view(batch, self.heads, 2 * length, length)
        shifted = shifted[:, :, 1:].view_as(position)[..., :length]
        weights = ((content + shifted) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.o(merge_heads(weights @ v))


class ConvolutionModule(nn.Module):
    """Pointwise GLU, depthwise convolution with batch norm, swish, pointwise."""

    def __init__(self, dim: int, kernel: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Conv1d(dim, 2 * dim, 1)
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.batch_norm = nn.BatchNorm1d(dim)
        self.project = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.glu(self.expand(self.norm(x).transpose(1, 2)), dim=1)
        y = F.silu(self.batch_norm(self.depthwise(y)))
        return self.project(y).transpose(1, 2)


def macaron(dim: int) -> nn.Sequential:
    """The pre-norm feed-forward that a Conformer block adds at half weight, twice."""
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.SiLU(), nn.Linear(3 * dim, dim)
    )


class ConformerLayer(nn.Module):
    """Half feed-forward, relative attention, convolution, half feed-forward, norm."""

    def __init__(self, dim: int, length: int):
        super().__init__()
        self.first, self.last = macaron(dim), macaron(dim)
        self.attention_norm, self.norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = RelativeAttention(dim, 4, length)
        self.convolution = ConvolutionModule(dim, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.first(x)
        x = x + self.attention(self.attention_norm(x))
        x = x + self.convolution(x)
        return self.norm(x + 0.5 * self.last(x))


class ConformerCTC(nn.Module):
    """Convolutional subsampling by four, Conformer layers, a CTC head."""

    def __init__(self, mels: int = 24, dim: int = 32, frames: int = 40):
        super().__init__()
        self.subsample = nn.Sequential(
            nn.Conv2d(1, 12, 3, stride=2), nn.ReLU(), nn.Conv2d(12, 16, 3, stride=2), nn.ReLU()
        )
        length, bands = ((frames - 1) // 2 - 1) // 2, ((mels - 1) // 2 - 1) // 2
        self.embed = nn.Linear(16 * bands, dim)
        self.scale = math.sqrt(dim)
        self.layers = nn.Sequential(*(ConformerLayer(dim, length) for _ in range(2)))
        self.head = nn.Linear(dim, VOCABULARY)

    def forward(self, features: Tensor) -> Tensor:
        x = self.subsample(features.unsqueeze(1))
        x = self.embed(x.transpose(1, 2).flatten(2)) * self.scale
        return self.head(self.layers(x)).log_softmax(-1)


@collect(CASES)
def conformer_ctc() -> Built:
    """Macaron feed-forwards, relative shift, GLU and depthwise convolution, subsampled input."""
    return ConformerCTC(), (torch.randn(1, 40, 24),)


class Transducer(nn.Module):
    """Streaming LSTM encoder with time reduction, LSTM predictor, additive joiner."""

    def __init__(self, mels: int = 20):
        super().__init__()
        self.encoder1 = nn.LSTM(2 * mels, 40, batch_first=True, proj_size=24)
        self.norm1 = nn.LayerNorm(24)
        self.encoder2 = nn.LSTM(48, 40, batch_first=True, proj_size=24)
        self.norm2 = nn.LayerNorm(24)
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.predictor = nn.LSTM(16, 28, num_layers=2, batch_first=True)
        self.from_encoder = nn.Linear(24, 36)
        self.from_predictor = nn.Linear(28, 36, bias=False)
        self.joiner = nn.Linear(36, VOCABULARY + 1)

    @staticmethod
    def stack_frames(x: Tensor) -> Tensor:
        """Concatenates every two neighbouring frames."""
        return x.reshape(x.shape[0], x.shape[1] // 2, 2 * x.shape[2])

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        x = self.norm1(self.encoder1(self.stack_frames(features))[0])
        x = self.norm2(self.encoder2(self.stack_frames(x))[0])
        y = self.predictor(self.embedding(labels))[0]
        joint = self.from_encoder(x).unsqueeze(2) + self.from_predictor(y).unsqueeze(1)
        return self.joiner(torch.tanh(joint)).log_softmax(-1)


@collect(CASES)
def rnnt_transducer() -> Built:
    """Projected LSTMs with frame stacking by reshape; encoder and predictor joined by broadcast."""
    return Transducer(), (torch.randn(1, 16, 20), tokens(5))


# --- speech synthesis ---------------------------------------------------------------------------


class ConvBatchNorm(nn.Module):
    """Convolution, optional ReLU, batch norm; an even kernel's extra step is cut off."""

    def __init__(self, inputs: int, outputs: int, kernel: int, relu: bool = True):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm1d(outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)[..., : x.shape[-1]]
        return self.norm(torch.relu(y) if self.relu else y)


class Highway(nn.Module):
    """A layer and its input, mixed by a learned gate and its complement."""

    def __init__(self, dim: int):
        super().__init__()
        self.transform, self.gate = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        return torch.relu(self.transform(x)) * gate + x * (1 - gate)


class CBHG(nn.Module):
    """A bank of convolutions, stride-one max pooling, highways and a two-way GRU."""

    def __init__(self, inputs: int, dim: int, kernels: int = 4):
        super().__init__()
        self.bank = nn.ModuleList(ConvBatchNorm(inputs, dim, k + 1) for k in range(kernels))
        self.pool = nn.MaxPool1d(2, stride=1, padding=1)
        self.project1 = ConvBatchNorm(kernels * dim, dim, 3)
        self.project2 = ConvBatchNorm(dim, inputs, 3, relu=False)
        self.widen = nn.Linear(inputs, dim, bias=False)
        self.highways = nn.Sequential(Highway(dim), Highway(dim))
        self.gru = nn.GRU(dim, dim, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(1, 2)
        bank = torch.cat([conv(y) for conv in self.bank], dim=1)
        y = y + self.project2(self.project1(self.pool(bank)[..., : x.shape[1]]))
        return self.gru(self.highways(self.widen(y.transpose(1, 2))))[0]


def prenet(inputs: int) -> nn.Sequential:
    """Tacotron's bottleneck with dropout."""
    return nn.Sequential(
        nn.Linear(inputs, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 16), nn.ReLU(), nn.Dropout()
    )


class Tacotron(nn.Module):
    """CBHG text encoder, GRU cells with additive attention, CBHG post-net."""

    def __init__(self, mels: int = 10, dim: int = 24, reduction: int = 2):
        super().__init__()
        self.mels, self.reduction = mels, reduction
        self.embedding = nn.Embedding(VOCABULARY, 32)
        self.encoder_prenet, self.encoder = prenet(32), CBHG(16, dim)
        self.decoder_prenet = prenet(mels)
        self.attention_cell = nn.GRUCell(16 + 2 * dim, 32)
        self.memory = nn.Linear(2 * dim, 20, bias=False)
        self.query = nn.Linear(32, 20, bias=False)
        self.energy = nn.Linear(20, 1, bias=False)
        self.join = nn.Linear(32 + 2 * dim, 32)
        self.cells = nn.ModuleList(nn.GRUCell(32, 32) for _ in range(2))
        self.frames = nn.Linear(32, mels * reduction)
        self.postnet = CBHG(mels, 16)
        self.spectrogram = nn.Linear(32, 33)

    def forward(self, ids: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.encoder(self.encoder_prenet(self.embedding(ids)))
        keys = self.memory(memory)
        states = [memory.new_zeros(ids.shape[0], 32) for _ in range(3)]
        context = torch.zeros_like(memory[:, 0])
        frames = []
        for step in previous.unbind(1):
            x = torch.cat([self.decoder_prenet(step), context], dim=-1)
            states[0] = self.attention_cell(x, states[0])
            energy = self.energy(torch.tanh(keys + self.query(states[0]).unsqueeze(1)))
            context = torch.bmm(energy.softmax(1).transpose(1, 2), memory).squeeze(1)
            x = self.join(torch.cat([states[0], context], dim=-1))
            for i, cell in enumerate(self.cells):
                states[i + 1] = cell(x, states[i + 1])
                x = x + states[i + 1]
            frames.append(self.frames(x))
        mels = torch.stack(frames, dim=1).view(ids.shape[0], -1, self.mels)
        return mels, self.spectrogram(self.postnet(mels))


@collect(CASES)
def tacotron_cbhg() -> Built:
    """Convolution bank, highways, GRU cells unrolled with Bahdanau attention, two frames a step."""
    return Tacotron(), (tokens(9), torch.randn(1, 4, 10))


def normed(conv: nn.Module) -> nn.Module:
    """The convolution under weight norm, scaled to keep the signal's variance."""
    nn.init.kaiming_normal_(conv.weight, a=1)
    return weight_norm(conv)


class ResidualStack(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair with its own residual."""

    def __init__(self, dim: int, kernel: int):
        super().__init__()
        self.dilated = nn.ModuleList(
            normed(nn.Conv1d(dim, dim, kernel, dilation=d, padding=d * (kernel // 2)))
            for d in (1, 3)
        )
        self.plain = nn.ModuleList(
            normed(nn.Conv1d(dim, dim, kernel, padding=kernel // 2)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.dilated, self.plain):
            x = x + plain(F.leaky_relu(dilated(F.leaky_relu(x, 0.1)), 0.1))
        return x


class HiFiGAN(nn.Module):
    """Transposed convolutions, each followed by the mean of several residual stacks."""

    def __init__(self, mels: int = 20, dim: int = 32):
        super().__init__()
        self.first = normed(nn.Conv1d(mels, dim, 7, padding=3))
        self.upsamplers, self.fields = nn.ModuleList(), nn.ModuleList()
        for rate in (4, 2):
            transposed = nn.ConvTranspose1d(dim, dim // 2, 2 * rate, rate, padding=rate // 2)
            self.upsamplers.append(normed(transposed))
            dim //= 2
            self.fields.append(nn.ModuleList(ResidualStack(dim, kernel) for kernel in (3, 5, 7)))
        self.last = normed(nn.Conv1d(dim, 1, 7, padding=3))

    def forward(self, mels: Tensor) -> Tensor:
        x = self.first(mels)
        for upsampler, fields in zip(self.upsamplers, self.fields):
            x = upsampler(F.leaky_relu(x, 0.1))
            x = sum(field(x) for field in fields) / len(fields)
        return torch.tanh(self.last(F.leaky_relu(x)))


@collect(CASES)
def hifigan_generator() -> Built:
    """Weight norm left in place, transposed convolutions, the mean of multi-receptive fields."""
    return HiFiGAN(), (torch.randn(1, 20, 12),)


# --- speech enhancement and speakers ------------------------------------------------------------


class GlobalNorm(nn.Module):
    """Normalises over channels and time at once, with gain and offset a channel."""

    def __init__(self, dim: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, dim, 1))
        self.offset = nn.Parameter(torch.zeros(1, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=(1, 2), keepdim=True)
        variance = centred.square().mean(dim=(1, 2), keepdim=True)
        return self.gain * centred / torch.sqrt(variance + 1e-8) + self.offset


class SeparatorBlock(nn.Module):
    """A dilated depthwise block with one output for the residual and one for the skip sum."""

    def __init__(self, dim: int, hidden: int, dilation: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(dim, hidden, 1),
            nn.PReLU(),
            GlobalNorm(hidden),
            nn.Conv1d(hidden, hidden, 3, padding=dilation, dilation=dilation, groups=hidden),
            nn.PReLU(),
            GlobalNorm(hidden),
        )
        self.residual, self.skip = nn.Conv1d(hidden, dim, 1), nn.Conv1d(hidden, 20, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.body(x)
        return x + self.residual(y), self.skip(y)


class ConvTasNet(nn.Module):
    """A learned filterbank, one mask per speaker over it, and a transposed filterbank."""

    def __init__(self, filters: int = 32, dim: int = 24, speakers: int = 2):
        super().__init__()
        self.speakers = speakers
        self.encoder = nn.Conv1d(1, filters, 16, stride=8, bias=False)
        self.norm, self.bottleneck = GlobalNorm(filters), nn.Conv1d(filters, dim, 1)
        self.blocks = nn.ModuleList(SeparatorBlock(dim, 40, 2**i) for i in range(3))
        self.activation = nn.PReLU()
        self.mask = nn.Conv1d(20, speakers * filters, 1)
        self.decoder = nn.ConvTranspose1d(filters, 1, 16, stride=8, bias=False)

    def forward(self, wave: Tensor) -> Tensor:
        mixture = torch.relu(self.encoder(wave.unsqueeze(1)))
        x, total = self.bottleneck(self.norm(mixture)), 0
        for block in self.blocks:
            x, skip = block(x)
            total = total + skip
        masks = torch.sigmoid(self.mask(self.activation(total)))
        masks = masks.view(wave.shape[0], self.speakers, -1, mixture.shape[-1])
        sources = (masks * mixture.unsqueeze(1)).flatten(0, 1)
        return self.decoder(sources).view(wave.shape[0], self.speakers, -1)


@collect(CASES)
def conv_tasnet() -> Built:
    """Global layer norm, one PReLU slope for all channels, skip sums, per-speaker masks by view."""
    return ConvTasNet(), (torch.randn(1, 256),)


class ComplexConv(nn.Module):
    """A complex convolution of two real ones; channels hold the real parts, then the imaginary."""

    def __init__(self, real: nn.Module, imaginary: nn.Module):
        super().__init__()
        self.real, self.imaginary = real, imaginary

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        real = self.real(a) - self.imaginary(b)
        return torch.cat([real, self.real(b) + self.imaginary(a)], dim=1)


class ComplexLSTM(nn.Module):
    """Two real LSTMs applied crosswise to the real and the imaginary part."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.real = nn.LSTM(inputs, hidden, batch_first=True)
        self.imaginary = nn.LSTM(inputs, hidden, batch_first=True)
        self.project_real = nn.Linear(hidden, inputs)
        self.project_imaginary = nn.Linear(hidden, inputs)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        real = self.real(a)[0] - self.imaginary(b)[0]
        imaginary = self.imaginary(a)[0] + self.real(b)[0]
        return self.project_real(real), self.project_imaginary(imaginary)


class DCCRN(nn.Module):
    """A complex convolutional recurrent U-Net that masks a Fourier transform by convolution."""

    def __init__(self, window: int = 32, hop: int = 16):
        super().__init__()
        self.hop = hop
        frequency, time = torch.arange(window // 2 + 1), torch.arange(window)
        angle = 2 * math.pi * frequency[:, None] * time[None] / window
        basis = torch.cat([angle.cos(), -angle.sin()]) * torch.hann_window(window).sqrt()
        self.register_buffer("analysis", basis.unsqueeze(1))
        weight = torch.full((window // 2 + 1, 1), 2.0)
        weight[0] = weight[-1] = 1.0
        self.register_buffer("synthesis", (basis * weight.repeat(2, 1) / window).unsqueeze(1))
        widths = (1, 6, 10)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for inner, outer in zip(widths[1:], widths):
            shape = {"kernel_size": (5, 2), "stride": (2, 1)}
            down = [nn.Conv2d(outer, inner, padding=(2, 1), **shape) for _ in range(2)]
            self.encoder.append(
                nn.Sequential(ComplexConv(*down), nn.BatchNorm2d(2 * inner), nn.PReLU())
            )
            shape |= {"padding": (2, 0), "output_padding": (1, 0)}
            up = [nn.ConvTranspose2d(2 * inner, outer, **shape) for _ in range(2)]
            tail = [nn.BatchNorm2d(2 * outer), nn.PReLU()] if outer > 1 else []
            self.decoder.insert(0, nn.Sequential(ComplexConv(*up), *tail))
        self.lstm = ComplexLSTM(widths[-1] * window // 8, 24)

    def recur(self, x: Tensor) -> Tensor:
        """The LSTM over time, with channels and frequencies as its features."""
        a, b = x.permute(0, 3, 1, 2).chunk(2, dim=2)
        shape = a.shape
        a, b = self.lstm(a.flatten(2), b.flatten(2))
        return torch.cat([a.view(shape), b.view(shape)], dim=2).permute(0, 2, 3, 1)

    def forward(self, wave: Tensor) -> Tensor:
        spectrum = F.conv1d(wave.unsqueeze(1), self.analysis, stride=self.hop)
        real, imaginary = spectrum.chunk(2, dim=1)
        magnitude = torch.sqrt(real**2 + imaginary**2 + 1e-8)
        phase = torch.atan2(imaginary, real)
        x = torch.stack([real, imaginary], dim=1)[:, :, 1:]
        skips = []
        for layer in self.encoder:
            x = layer(x)[..., :-1]
            skips.append(x)
        x = self.recur(x)
        for layer in self.decoder:
            parts = zip(x.chunk(2, dim=1), skips.pop().chunk(2, dim=1))
            x = layer(torch.cat([part for pair in parts for part in pair], dim=1))[..., 1:]
        mask = F.pad(x, (0, 0, 1, 0))
        size = torch.sqrt(mask[:, 0] ** 2 + mask[:, 1] ** 2 + 1e-8)
        turn = torch.atan2(mask[:, 1] / size, mask[:, 0] / size)
        magnitude, phase = magnitude * torch.tanh(size), phase + turn
        spectrum = torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)
        return F.conv_transpose1d(spectrum, self.synthesis, stride=self.hop).squeeze(1)


@collect(CASES)
def dccrn_enhancer() -> Built:
    """Complex convolutions and LSTM, skips interleaved by halves, polar mask, Fourier constants."""
    return DCCRN(), (torch.randn(1, 256),)


class RNNoise(nn.Module):
    """Three GRUs, each fed by concatenations of the input and the GRUs before it."""

    def __init__(self, features: int = 42, bands: int = 22):
        super().__init__()
        self.dense = nn.Linear(features, 24)
        self.vad_gru = nn.GRU(24, 24, batch_first=True)
        self.vad = nn.Linear(24, 1)
        self.noise_gru = nn.GRU(24 + 24 + features, 48, batch_first=True)
        self.denoise_gru = nn.GRU(24 + 48 + features, 96, batch_first=True)
        self.gains = nn.Linear(96, bands)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.tanh(self.dense(features))
        voice, _ = self.vad_gru(x)
        noise, _ = self.noise_gru(torch.cat([x, voice, features], dim=-1))
        clean, _ = self.denoise_gru(torch.cat([voice, noise, features], dim=-1))
        return torch.sigmoid(self.gains(clean)), torch.sigmoid(self.vad(voice))


@collect(CASES)
def rnnoise() -> Built:
    """GRUs of three widths joined by concatenated skips; gains and voice activity as outputs."""
    return RNNoise(), (torch.randn(1, 12, 42),)


def conv_relu_norm(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """The time-delay layer of ECAPA-TDNN."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=padding),
        nn.ReLU(),
        nn.BatchNorm1d(outputs),
    )


class SERes2Block(nn.Module):
    """A Res2 convolution (each slice is fed the one before it) with squeeze and excitation."""

    def __init__(self, dim: int, dilation: int, scale: int = 4):
        super().__init__()
        self.scale, width = scale, dim // scale
        self.first, self.last = conv_relu_norm(dim, dim), conv_relu_norm(dim, dim)
        self.slices = nn.ModuleList(
            conv_relu_norm(width, width, 3, dilation) for _ in range(scale - 1)
        )
        self.excite = nn.Sequential(
            nn.Conv1d(dim, 12, 1), nn.ReLU(), nn.Conv1d(12, dim, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(self.scale, dim=1))
        for i, conv in enumerate(self.slices, start=1):
            parts[i] = conv(parts[i] if i == 1 else parts[i] + parts[i - 1])
        y = self.last(torch.cat(parts, dim=1))
        return x + y * self.excite(y.mean(dim=2, keepdim=True))


class EcapaTdnn(nn.Module):
    """Blocks aggregated by concatenation, attentive statistics pooling, a unit-length embedding."""

    def __init__(self, mels: int = 24, dim: int = 32, embedding: int = 20):
        super().__init__()
        self.first = conv_relu_norm(mels, dim, 5)
        self.blocks = nn.ModuleList(SERes2Block(dim, dilation) for dilation in (2, 3, 4))
        self.aggregate = nn.Sequential(nn.Conv1d(3 * dim, 48, 1), nn.ReLU())
        self.attention = nn.Sequential(
            nn.Conv1d(3 * 48, 16, 1),
            nn.ReLU(),
            nn.BatchNorm1d(16),
            nn.Tanh(),
            nn.Conv1d(16, 48, 1),
            nn.Softmax(dim=2),
        )
        self.norm = nn.BatchNorm1d(2 * 48)
        self.embed = nn.Linear(2 * 48, embedding)
        self.embed_norm = nn.BatchNorm1d(embedding)

    def forward(self, features: Tensor) -> Tensor:
        x = self.first(features)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        x = self.aggregate(torch.cat(outputs, dim=1))
        mean = x.mean(dim=2, keepdim=True).expand_as(x)
        std = torch.sqrt(x.var(dim=2, keepdim=True).clamp(min=1e-4)).expand_as(x)
        weights = self.attention(torch.cat([x, mean, std], dim=1))
        mean = (weights * x).sum(dim=2)
        std = torch.sqrt(((weights * x**2).sum(dim=2) - mean**2).clamp(min=1e-4))
        pooled = self.norm(torch.cat([mean, std], dim=1))
        return F.normalize(self.embed_norm(self.embed(pooled)))


@collect(CASES)
def ecapa_tdnn() -> Built:
    """Hierarchical Res2 slices, squeeze and excitation, weighted mean and deviation pooling."""
    return EcapaTdnn(), (torch.randn(1, 24, 30),)

"""Small, randomly initialised backbones and classifiers (image, text line, video, point cloud,
tracking) with the peculiar operators of the networks that run on edge devices.

    python tools/zoo_coverage.py --zoo tools/zoo/vision.py [CASE ...]

Each follows the published topology at reduced width. The cases were written before any of them was
run through the pruner. Detectors are in dense_vision.py, networks per pixel in pixel_vision.py.
"""

import math
import sys
from itertools import pairwise, product
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from blocks import (
    BasicBlock,
    Residual,
    SqueezeExcite,
    classifier,
    conv_bn,
    inverted_residual,
    projection,
)
from generic import Built, collect

CASES: dict[str, dict] = {}


# EfficientViT


class LinearAttention(nn.Module):
    """Multi-scale ReLU linear attention: no softmax, the normaliser is a padded channel of ones."""

    def __init__(self, channels: int, dim: int = 8, scale: int = 5) -> None:
        super().__init__()
        self.dim = dim
        heads = channels // dim
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.aggregate = nn.Sequential(
            nn.Conv2d(
                3 * channels, 3 * channels, scale, 1, scale // 2, groups=3 * channels, bias=False
            ),
            nn.Conv2d(3 * channels, 3 * channels, 1, groups=3 * heads, bias=False),
        )
        self.proj = conv_bn(2 * channels, channels, 1, act=None)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        qkv = self.qkv(x)
        qkv = torch.cat([qkv, self.aggregate(qkv)], 1)
        qkv = qkv.reshape(batch, -1, 3 * self.dim, height * width)
        q = F.relu(qkv[:, :, : self.dim])
        k = F.relu(qkv[:, :, self.dim : 2 * self.dim])
        v = F.pad(qkv[:, :, 2 * self.dim :], (0, 0, 0, 1), value=1.0)
        out = (v @ k.transpose(-1, -2)) @ q
        out = out[:, :, :-1] / (out[:, :, -1:] + 1e-6)
        return self.proj(out.reshape(batch, -1, height, width))


class EfficientViT(nn.Module):
    """EfficientViT-B: convolution stages, then linear attention and MBConv with fewer norms."""

    def __init__(self) -> None:
        super().__init__()
        act = nn.Hardswish
        self.stem = nn.Sequential(
            conv_bn(3, 16, 3, 2, act=act),
            Residual(conv_bn(16, 16, groups=16, act=act), conv_bn(16, 16, 1, act=None)),
            inverted_residual(16, 24, 2, act=act),
            inverted_residual(24, 24, act=act),
            inverted_residual(24, 32, 2, act=act),
        )
        blocks: list[nn.Module] = []
        for _ in range(2):
            feed_forward = Residual(
                nn.Conv2d(32, 96, 1),
                act(),
                nn.Conv2d(96, 96, 3, padding=1, groups=96),
                act(),
                conv_bn(96, 32, 1, act=None),
            )
            blocks += [Residual(LinearAttention(32)), feed_forward]
        self.stage = nn.Sequential(*blocks)
        self.neck = conv_bn(32, 64, 1, act=act)
        self.head = nn.Sequential(
            nn.Linear(64, 48, bias=False), nn.LayerNorm(48), act(), nn.Linear(48, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.neck(self.stage(self.stem(x))).mean((2, 3)))


@collect(CASES, calibrate=True)
def efficientvit() -> Built:
    """Linear attention with ReLU and a normaliser row padded onto the values."""
    return EfficientViT(), (torch.randn(1, 3, 64, 64),)


# LeViT


class LinearNorm(nn.Module):
    """Linear without bias, then batch norm over the tokens flattened into the batch."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return self.norm(x.flatten(0, 1)).reshape_as(x)


def offset_table(size: int, stride: int) -> tuple[int, Tensor]:
    """Number of distinct |offsets| from strided queries to keys, and the index of each pair's."""
    keys = list(product(range(size), range(size)))
    queries = list(product(range(0, size, stride), range(0, size, stride)))
    offsets: dict[tuple[int, int], int] = {}
    index = [
        offsets.setdefault((abs(q[0] - k[0]), abs(q[1] - k[1])), len(offsets))
        for q in queries
        for k in keys
    ]
    return len(offsets), torch.tensor(index).view(len(queries), len(keys))


class LevitAttention(nn.Module):
    """Keys narrower than values, looked-up biases; with a stride the queries are subsampled."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        key_dim: int,
        heads: int,
        ratio: int,
        size: int,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.heads, self.key_dim, self.value_dim = heads, key_dim, ratio * key_dim
        self.size, self.stride = size, stride
        self.q = LinearNorm(inputs, heads * key_dim)
        self.kv = LinearNorm(inputs, heads * (key_dim + self.value_dim))
        self.proj = nn.Sequential(nn.Hardswish(), LinearNorm(heads * self.value_dim, outputs))
        count, index = offset_table(size, stride)
        self.biases = nn.Parameter(torch.zeros(heads, count))
        self.register_buffer("index", index)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        k, v = (
            self.kv(x)
            .view(batch, tokens, self.heads, -1)
            .split([self.key_dim, self.value_dim], dim=3)
        )
        if self.stride > 1:
            x = x.view(batch, self.size, self.size, channels)
            x = x[:, :: self.stride, :: self.stride].reshape(batch, -1, channels)
        q = self.q(x).view(batch, -1, self.heads, self.key_dim).permute(0, 2, 1, 3)
        scores = q @ k.permute(0, 2, 3, 1) * self.key_dim**-0.5 + self.biases[:, self.index]
        out = scores.softmax(-1) @ v.permute(0, 2, 1, 3)
        return self.proj(out.transpose(1, 2).flatten(2))


class Levit(nn.Module):
    """LeViT with a distilled head; both heads are a batch norm and a linear, averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv_bn(3, 12, 3, 2, act=nn.Hardswish),
            conv_bn(12, 24, 3, 2, act=nn.Hardswish),
            conv_bn(24, 32, 3, 2, act=None),
        )
        self.blocks = nn.Sequential(
            Residual(LevitAttention(32, 32, 8, 4, 2, 8)),
            self._mlp(32),
            LevitAttention(32, 48, 8, 4, 4, 8, stride=2),
            self._mlp(48),
            Residual(LevitAttention(48, 48, 8, 6, 2, 4)),
            self._mlp(48),
        )
        self.head = nn.Sequential(nn.BatchNorm1d(48), nn.Linear(48, 10))
        self.head_dist = nn.Sequential(nn.BatchNorm1d(48), nn.Linear(48, 10))

    @staticmethod
    def _mlp(channels: int) -> Residual:
        return Residual(
            LinearNorm(channels, 2 * channels), nn.Hardswish(), LinearNorm(2 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x).flatten(2).transpose(1, 2)).mean(1)
        return (self.head(x) + self.head_dist(x)) / 2


@collect(CASES, calibrate=True)
def levit() -> Built:
    """Attention with batch norm, biases gathered by offset and queries taken at a stride."""
    return Levit(), (torch.randn(1, 3, 64, 64),)


# MobileOne


class OverParametrised(nn.Module):
    """MobileOne's block: sums k equal convolutions, a 1x1 one and a batch norm of the input."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, k: int = 2
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            conv_bn(inputs, outputs, kernel, stride, groups, act=None) for _ in range(k)
        )
        self.scale = conv_bn(inputs, outputs, 1, stride, groups, act=None) if kernel > 1 else None
        self.skip = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.convs[0](x)
        if self.skip is not None:
            out = out + self.skip(x)
        if self.scale is not None:
            out = out + self.scale(x)
        for conv in self.convs[1:]:
            out = out + conv(x)
        return F.relu(out)


@collect(CASES, calibrate=True)
def mobileone() -> Built:
    """Depthwise and pointwise branches as trained, not merged; one is a lone batch norm."""
    layers: list[nn.Module] = [OverParametrised(3, 16, 3, 2, k=1)]
    for inputs, outputs, stride in [(16, 24, 2), (24, 24, 1), (24, 48, 2), (48, 48, 1)]:
        layers += [
            OverParametrised(inputs, inputs, 3, stride, groups=inputs),
            OverParametrised(inputs, outputs, 1),
        ]
    return nn.Sequential(*layers, classifier(48)), (torch.randn(1, 3, 64, 64),)


# Res2Net


class Res2Block(nn.Module):
    """Bottleneck whose 3x3 works on a hierarchy of channel splits, each fed the one before."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.width, self.scale = width, 4
        self.first = stride != 1 or inputs != outputs
        self.conv1 = conv_bn(inputs, width * self.scale, 1)
        self.convs = nn.ModuleList(conv_bn(width, width, 3, stride) for _ in range(self.scale - 1))
        self.pool = nn.AvgPool2d(3, stride, 1)
        self.conv3 = conv_bn(width * self.scale, outputs, 1, act=None)
        self.shortcut: nn.Module = nn.Identity()
        if self.first:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
                conv_bn(inputs, outputs, 1, act=None),
            )

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(self.conv1(x), self.width, 1)
        part = parts[0]
        outs = []
        for i, conv in enumerate(self.convs):
            if i > 0:
                part = parts[i] if self.first else part + parts[i]
            part = conv(part)
            outs.append(part)
        outs.append(self.pool(parts[-1]) if self.first else parts[-1])
        return F.relu(self.conv3(torch.cat(outs, 1)) + self.shortcut(x))


@collect(CASES, calibrate=True)
def res2net() -> Built:
    """Splits of one layer's channels that pass through convolutions in a chain, then concat."""
    module = nn.Sequential(
        conv_bn(3, 12, 3, 2),
        conv_bn(12, 12),
        conv_bn(12, 24),
        nn.MaxPool2d(3, 2, 1),
        Res2Block(24, 8, 48),
        Res2Block(48, 8, 48),
        Res2Block(48, 12, 64, 2),
        Res2Block(64, 12, 64),
        classifier(64),
    )
    return module, (torch.randn(1, 3, 64, 64),)


# SKNet


class SelectiveKernel(nn.Module):
    """Two kernels (one dilated) weighed per channel by a softmax over the branches."""

    def __init__(self, channels: int, stride: int = 1, groups: int = 4) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            conv_bn(channels, channels, 3, stride, groups, dilation) for dilation in (1, 2)
        )
        self.reduce = conv_bn(channels, max(channels // 4, 8), 1)
        self.select = nn.Conv2d(max(channels // 4, 8), 2 * channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        stacked = torch.stack([branch(x) for branch in self.branches], 1)
        pooled = stacked.sum(1).mean((2, 3), keepdim=True)
        logits = self.select(self.reduce(pooled))
        batch, count, channels = stacked.shape[:3]
        weights = logits.view(batch, count, channels, 1, 1).softmax(1)
        return (stacked * weights).sum(1)


class SelectiveBlock(nn.Module):
    """Bottleneck with a selective-kernel convolution in the middle."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(inputs, width, 1),
            SelectiveKernel(width, stride),
            conv_bn(width, outputs, 1, act=None),
        )
        self.shortcut = projection(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


@collect(CASES, calibrate=True)
def sknet() -> Built:
    """Stacked branches and a softmax over them: one layer's outputs are (branch, channel) pairs."""
    module = nn.Sequential(
        conv_bn(3, 24, 3, 2),
        nn.MaxPool2d(3, 2, 1),
        SelectiveBlock(24, 32, 48),
        SelectiveBlock(48, 32, 48),
        SelectiveBlock(48, 48, 64, 2),
        classifier(64),
    )
    return module, (torch.randn(1, 3, 64, 64),)


# ECA-Net


class EfficientChannelAttention(nn.Module):
    """A gate per channel from a 1d convolution that slides over the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        kernel = int(abs((math.log2(channels) + 1) / 2)) | 1
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.pool(x).squeeze(-1).transpose(-1, -2))
        y = y.transpose(-1, -2).unsqueeze(-1).sigmoid()
        return x * y.expand_as(x)


@collect(CASES, calibrate=True)
def ecanet() -> Built:
    """A convolution along the channel axis: neighbouring channels are tied by position."""
    module = nn.Sequential(
        conv_bn(3, 16, 7, 2),
        nn.MaxPool2d(3, 2, 1),
        BasicBlock(16, 16, gate=EfficientChannelAttention(16)),
        BasicBlock(16, 32, 2, gate=EfficientChannelAttention(32)),
        BasicBlock(32, 48, 2, gate=EfficientChannelAttention(48)),
        classifier(48),
    )
    return module, (torch.randn(1, 3, 64, 64),)


# CondConv


class CondConv2d(nn.Module):
    """Kernels mixed per sample from flat expert weights, applied as one grouped convolution."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.shape = (outputs, inputs // groups, kernel, kernel)
        self.stride, self.groups = stride, groups
        fan = math.prod(self.shape[1:])
        self.experts = nn.Parameter(torch.randn(4, outputs * fan) * math.sqrt(2 / fan))

    def forward(self, x: Tensor, routing: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        outputs, *rest = self.shape
        weight = (routing @ self.experts).view(batch * outputs, *rest)
        x = F.conv2d(
            x.reshape(1, batch * channels, height, width),
            weight,
            stride=self.stride,
            padding=rest[-1] // 2,
            groups=self.groups * batch,
        )
        return x.view(batch, outputs, x.shape[-2], x.shape[-1])


class CondBlock(nn.Module):
    """MBConv with squeeze-excitation whose three convolutions share one routing of experts."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        hidden = 3 * inputs
        self.routing = nn.Linear(inputs, 4)
        self.expand, self.norm1 = CondConv2d(inputs, hidden, 1), nn.BatchNorm2d(hidden)
        self.depthwise = CondConv2d(hidden, hidden, 3, stride, hidden)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.se = SqueezeExcite(hidden, 8, nn.SiLU)
        self.project, self.norm3 = CondConv2d(hidden, outputs, 1), nn.BatchNorm2d(outputs)
        self.has_skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        routing = self.routing(F.adaptive_avg_pool2d(x, 1).flatten(1)).sigmoid()
        y = F.silu(self.norm1(self.expand(x, routing)))
        y = F.silu(self.norm2(self.depthwise(y, routing)))
        y = self.norm3(self.project(self.se(y), routing))
        return x + y if self.has_skip else y


@collect(CASES, calibrate=True)
def condconv() -> Built:
    """The convolution's weight is computed in the graph, viewed out of a matrix of experts."""
    module = nn.Sequential(
        conv_bn(3, 16, 3, 2, act=nn.SiLU),
        inverted_residual(16, 24, 2, se=4),
        CondBlock(24, 24),
        CondBlock(24, 32, 2),
        CondBlock(32, 32),
        conv_bn(32, 64, 1, act=nn.SiLU),
        classifier(64),
    )
    return module, (torch.randn(1, 3, 64, 64),)


# CRNN


class BidirectionalLSTM(nn.Module):
    """Bidirectional LSTM and a linear over time steps flattened into the batch."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, hidden, bidirectional=True)
        self.embedding = nn.Linear(2 * hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        recurrent, _ = self.rnn(x)
        steps, batch, features = recurrent.shape
        return self.embedding(recurrent.view(steps * batch, features)).view(steps, batch, -1)


class CRNN(nn.Module):
    """Text recognition: VGG-like convolutions down to height 1, columns as time steps, CTC."""

    def __init__(self, classes: int = 37) -> None:
        super().__init__()
        widths = [1, 16, 24, 32, 32, 48, 48]
        pools: dict[int, nn.Module] = {
            0: nn.MaxPool2d(2, 2),
            1: nn.MaxPool2d(2, 2),
            3: nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
            5: nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
        }
        layers: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(pairwise(widths)):
            layers.append(nn.Conv2d(inputs, outputs, 3, 1, 1))
            layers += [nn.BatchNorm2d(outputs)] if i in (2, 4) else []
            layers.append(nn.ReLU(inplace=True))
            layers += [pools[i]] if i in pools else []
        layers += [nn.Conv2d(48, 64, 2), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
        self.cnn = nn.Sequential(*layers)
        self.rnn = nn.Sequential(BidirectionalLSTM(64, 32, 32), BidirectionalLSTM(32, 32, classes))

    def forward(self, x: Tensor) -> Tensor:
        columns = self.cnn(x).squeeze(2).permute(2, 0, 1)
        return F.log_softmax(self.rnn(columns), 2)


@collect(CASES, calibrate=True)
def crnn() -> Built:
    """Anisotropic pooling to height one, then two bidirectional LSTMs over the columns."""
    return CRNN(), (torch.randn(1, 1, 32, 64),)


# X3D


class X3DBlock(nn.Module):
    """Inverted bottleneck over time and space, squeeze-excitation before the swish."""

    def __init__(self, inputs: int, outputs: int, stride: int, se: bool) -> None:
        super().__init__()
        hidden = int(2.25 * inputs)
        self.a = nn.Conv3d(inputs, hidden, 1, bias=False)
        self.a_norm = nn.BatchNorm3d(hidden)
        self.b = nn.Conv3d(hidden, hidden, 3, (1, stride, stride), 1, groups=hidden, bias=False)
        self.b_norm = nn.BatchNorm3d(hidden)
        self.se = None
        if se:
            self.se = nn.Sequential(
                nn.AdaptiveAvgPool3d(1),
                nn.Conv3d(hidden, 8, 1),
                nn.ReLU(),
                nn.Conv3d(8, hidden, 1),
                nn.Sigmoid(),
            )
        self.c = nn.Conv3d(hidden, outputs, 1, bias=False)
        self.c_norm = nn.BatchNorm3d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, (1, stride, stride), bias=False),
                nn.BatchNorm3d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.b_norm(self.b(F.relu(self.a_norm(self.a(x)))))
        if self.se is not None:
            y = y * self.se(y)
        return F.relu(self.c_norm(self.c(F.silu(y))) + self.shortcut(x))


class X3D(nn.Module):
    """X3D with its fully convolutional test head: softmax at each position, then the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, 16, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False),
            nn.Conv3d(16, 16, (5, 1, 1), padding=(2, 0, 0), groups=16, bias=False),
            nn.BatchNorm3d(16),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(
            X3DBlock(16, 16, 2, True),
            X3DBlock(16, 16, 1, False),
            X3DBlock(16, 24, 2, True),
            X3DBlock(24, 24, 1, False),
        )
        self.conv5 = nn.Sequential(
            nn.Conv3d(24, 48, 1, bias=False),
            nn.BatchNorm3d(48),
            nn.ReLU(),
            nn.AvgPool3d((4, 4, 4), stride=1),
        )
        self.linear5 = nn.Conv3d(48, 64, 1, bias=False)
        self.projection = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.linear5(self.conv5(self.blocks(self.stem(x)))))
        x = self.projection(x.permute(0, 2, 3, 4, 1)).softmax(4).mean([1, 2, 3])
        return x.view(x.shape[0], -1)


@collect(CASES, calibrate=True)
def x3d() -> Built:
    """Depthwise 3d and temporal convolutions; the last linear acts on a channels-last volume."""
    return X3D(), (torch.randn(1, 3, 4, 32, 32),)


# TSM


class TemporalShift(nn.Module):
    """Moves an eighth of the channels a frame back and an eighth a frame forward, in place."""

    def __init__(self, body: nn.Module, frames: int) -> None:
        super().__init__()
        self.body, self.frames = body, frames

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        x = x.view(-1, self.frames, channels, height, width)
        fold = channels // 8
        out = torch.zeros_like(x)
        out[:, :-1, :fold] = x[:, 1:, :fold]
        out[:, 1:, fold : 2 * fold] = x[:, :-1, fold : 2 * fold]
        out[:, :, 2 * fold :] = x[:, :, 2 * fold :]
        return self.body(out.view(-1, channels, height, width))


class ShiftBottleneck(nn.Module):
    """ResNet bottleneck with the shift before its first convolution only (residual shift)."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int, frames: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            TemporalShift(conv_bn(inputs, width, 1), frames),
            conv_bn(width, width, 3, stride),
            conv_bn(width, outputs, 1, act=None),
        )
        self.shortcut = projection(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class TemporalShiftNet(nn.Module):
    """2d network over frames folded into the batch, logits averaged over the frames."""

    def __init__(self, frames: int = 4) -> None:
        super().__init__()
        self.frames = frames
        self.features = nn.Sequential(
            conv_bn(3, 16, 7, 2),
            nn.MaxPool2d(3, 2, 1),
            ShiftBottleneck(16, 12, 32, 1, frames),
            ShiftBottleneck(32, 12, 32, 1, frames),
            ShiftBottleneck(32, 16, 64, 2, frames),
            nn.AdaptiveAvgPool2d(1),
        )
        self.fc = nn.Linear(64, 10)

    def forward(self, clip: Tensor) -> Tensor:
        logits = self.fc(self.features(clip.flatten(0, 1)).flatten(1))
        return logits.view(-1, self.frames, logits.shape[-1]).mean(1)


@collect(CASES, calibrate=True)
def tsm() -> Built:
    """Slices of the channels assigned into a zero tensor at shifted frames."""
    return TemporalShiftNet(), (torch.randn(1, 4, 3, 32, 32),)


# PointNet


def point_mlp(*widths: int) -> nn.Sequential:
    """1x1 convolutions over the points, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class TransformNet(nn.Module):
    """Predicts a dim x dim matrix from all points, as an offset from the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.points = point_mlp(dim, 16, 32, 64)
        self.fc = nn.Sequential(
            nn.Linear(64, 32),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Linear(32, 24),
            nn.BatchNorm1d(24),
            nn.ReLU(),
            nn.Linear(24, dim * dim),
        )
        self.register_buffer("identity", torch.eye(dim).flatten())

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.max(self.points(x), 2, keepdim=True)[0].view(-1, 64)
        return (self.fc(pooled) + self.identity).view(-1, self.dim, self.dim)


class PointNet(nn.Module):
    """Part segmentation: the global feature is repeated and concatenated to each point's own."""

    def __init__(self, classes: int = 6) -> None:
        super().__init__()
        self.input_transform, self.feature_transform = TransformNet(3), TransformNet(16)
        self.first, self.rest = point_mlp(3, 16), point_mlp(16, 32, 64)
        self.head = nn.Sequential(point_mlp(64 + 16, 48, 32), nn.Conv1d(32, classes, 1))

    def forward(self, points: Tensor) -> Tensor:
        x = torch.bmm(points.transpose(2, 1), self.input_transform(points)).transpose(2, 1)
        x = self.first(x)
        local = torch.bmm(x.transpose(2, 1), self.feature_transform(x)).transpose(2, 1)
        pooled = torch.max(self.rest(local), 2, keepdim=True)[0]
        x = torch.cat([pooled.repeat(1, 1, points.shape[2]), local], 1)
        return F.log_softmax(self.head(x).transpose(2, 1), -1)


@collect(CASES, calibrate=True)
def pointnet() -> Built:
    """Max over points, and features multiplied by a matrix that the network itself predicts."""
    return PointNet(), (torch.randn(1, 3, 128),)


# SiamRPN++


class DepthwiseCorrelation(nn.Module):
    """The template's features are the kernel of a depthwise convolution of the search region's."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Sequential(
            nn.Conv2d(channels, channels, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.search = nn.Sequential(
            nn.Conv2d(channels, channels, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.head = nn.Sequential(conv_bn(channels, channels, 1), nn.Conv2d(channels, outputs, 1))

    def forward(self, template: Tensor, search: Tensor) -> Tensor:
        kernel, x = self.kernel(template), self.search(search)
        batch, channels = kernel.shape[:2]
        x = x.view(1, batch * channels, x.shape[2], x.shape[3])
        kernel = kernel.view(batch * channels, 1, kernel.shape[2], kernel.shape[3])
        out = F.conv2d(x, kernel, groups=batch * channels)
        return self.head(out.view(batch, channels, out.shape[2], out.shape[3]))


class SiameseTracker(nn.Module):
    """SiamRPN++: one backbone on both images, heads at two depths mixed by softmaxed weights."""

    def __init__(self, anchors: int = 5, channels: int = 24) -> None:
        super().__init__()
        act = nn.ReLU6
        self.stem = nn.Sequential(
            conv_bn(3, 16, 3, 2, act=act),
            inverted_residual(16, 24, 2, act=act),
            inverted_residual(24, 24, act=act),
        )
        self.levels = nn.ModuleList(
            [inverted_residual(24, 32, act=act), inverted_residual(32, 48, act=act)]
        )
        self.necks = nn.ModuleList(conv_bn(width, channels, 1, act=None) for width in (32, 48))
        self.scores = nn.ModuleList(DepthwiseCorrelation(channels, 2 * anchors) for _ in range(2))
        self.boxes = nn.ModuleList(DepthwiseCorrelation(channels, 4 * anchors) for _ in range(2))
        self.score_weight = nn.Parameter(torch.ones(2))
        self.box_weight = nn.Parameter(torch.ones(2))

    def features(self, x: Tensor) -> list[Tensor]:
        """Feature maps of both depths, brought to one width."""
        x = self.stem(x)
        outs = []
        for level, neck in zip(self.levels, self.necks, strict=True):
            x = level(x)
            outs.append(neck(x))
        return outs

    def forward(self, template: Tensor, search: Tensor) -> tuple[Tensor, Tensor]:
        templates = [z[:, :, 2:-2, 2:-2] for z in self.features(template)]
        searches = self.features(search)
        results = []
        for heads, weight in ((self.scores, self.score_weight), (self.boxes, self.box_weight)):
            weights = weight.softmax(0)
            outs = [head(z, x) for head, z, x in zip(heads, templates, searches, strict=True)]
            results.append(sum(weights[i] * out for i, out in enumerate(outs)))
        return results[0], results[1]


@collect(CASES, calibrate=True)
def siamese_tracker() -> Built:
    """A backbone called twice; cross-correlation with features as a grouped kernel."""
    return SiameseTracker(), (torch.randn(1, 3, 32, 32), torch.randn(1, 3, 64, 64))

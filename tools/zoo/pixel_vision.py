"""Small, randomly initialised networks that predict every pixel: segmentation, restoration,
diffusion and optical flow, with the peculiar operators of those on edge devices.

    python tools/zoo_coverage.py --zoo tools/zoo/pixel_vision.py [CASE ...]

Each follows the published topology at reduced width. The cases were written before any of them was
run through the pruner. Detectors are in dense_vision.py, classifiers in vision.py.
"""

import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from blocks import BasicBlock, Residual, conv_bn, grid_points
from generic import Built, collect

CASES: dict[str, dict] = {}


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the height and width of another tensor."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


# DeepLabV3+


def separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    """Atrous separable convolution, norm and ReLU after both parts."""
    return nn.Sequential(
        conv_bn(inputs, inputs, 3, groups=inputs, dilation=dilation), conv_bn(inputs, outputs, 1)
    )


class DeepLab(nn.Module):
    """DeepLabV3+: dilated ResNet, atrous spatial pyramid with image pooling, shallow skip."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.low = nn.Sequential(conv_bn(3, 16, 3, 2), nn.MaxPool2d(3, 2, 1), BasicBlock(16, 24))
        self.high = nn.Sequential(
            BasicBlock(24, 32, 2), BasicBlock(32, 48, dilation=2), BasicBlock(48, 48, dilation=4)
        )
        self.pyramid = nn.ModuleList(
            [conv_bn(48, 24, 1), *(separable(48, 24, rate) for rate in (2, 4, 6))]
        )
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn(48, 24, 1))
        self.project = nn.Sequential(conv_bn(5 * 24, 32, 1), nn.Dropout(0.5))
        self.skip = conv_bn(24, 12, 1)
        self.decode = nn.Sequential(separable(32 + 12, 32), separable(32, 32))
        self.classify = nn.Conv2d(32, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        low = self.low(image)
        x = self.high(low)
        outs = [branch(x) for branch in self.pyramid]
        outs.append(resize(self.pooled(x), x))
        x = self.project(torch.cat(outs, 1))
        x = self.decode(torch.cat((resize(x, low), self.skip(low)), 1))
        return resize(self.classify(x), image)


@collect(CASES, calibrate=True)
def deeplabv3_plus() -> Built:
    """Parallel dilated branches and a globally pooled one resized back, all concatenated."""
    return DeepLab(), (torch.randn(1, 3, 64, 64),)


# BiSeNetV2


class StemBlock(nn.Module):
    """Downsamples by convolution and by max pool, and concatenates the two."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = conv_bn(3, outputs, 3, 2)
        self.left = nn.Sequential(
            conv_bn(outputs, outputs // 2, 1), conv_bn(outputs // 2, outputs, 3, 2)
        )
        self.right = nn.MaxPool2d(3, 2, 1)
        self.fuse = conv_bn(2 * outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.fuse(torch.cat((self.left(x), self.right(x)), 1))


class GatherExpand(nn.Module):
    """Expansion by a depthwise convolution with a channel multiplier (groups != outputs)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, expand: int = 4) -> None:
        super().__init__()
        hidden = inputs * expand
        widen = conv_bn(inputs, hidden, 3, stride, inputs, act=nn.ReLU if stride == 1 else None)
        body = [conv_bn(inputs, inputs), widen]
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            body.append(conv_bn(hidden, hidden, 3, groups=hidden))
            self.shortcut = nn.Sequential(
                conv_bn(inputs, inputs, 3, 2, inputs, act=None),
                conv_bn(inputs, outputs, 1, act=None),
            )
        self.body = nn.Sequential(*body, conv_bn(hidden, outputs, 1, act=None))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class ContextEmbedding(nn.Module):
    """The global mean through a batch norm, added to every position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = conv_bn(channels, channels, 1)
        self.last = conv_bn(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x + self.conv(self.norm(x.mean((2, 3), keepdim=True))))


class GuidedAggregation(nn.Module):
    """Detail and semantic branches gate each other, at both resolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()

        def depthwise() -> nn.Sequential:
            return nn.Sequential(
                conv_bn(channels, channels, 3, groups=channels, act=None),
                nn.Conv2d(channels, channels, 1, bias=False),
            )

        self.detail, self.semantic = depthwise(), depthwise()
        self.detail_down = nn.Sequential(
            conv_bn(channels, channels, 3, 2, act=None), nn.AvgPool2d(3, 2, 1)
        )
        self.semantic_up = nn.Sequential(
            conv_bn(channels, channels, act=None), nn.Upsample(scale_factor=4, mode="bilinear")
        )
        self.conv = conv_bn(channels, channels, act=None)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        high = self.detail(detail) * self.semantic_up(semantic).sigmoid()
        low = self.detail_down(detail) * self.semantic(semantic).sigmoid()
        return self.conv(high + resize(low, high))


class BiSeNet(nn.Module):
    """BiSeNetV2: a shallow wide branch for detail, a deep narrow one for semantics."""

    def __init__(self) -> None:
        super().__init__()
        self.detail = nn.Sequential(
            conv_bn(3, 16, 3, 2),
            conv_bn(16, 16),
            conv_bn(16, 24, 3, 2),
            conv_bn(24, 24),
            conv_bn(24, 32, 3, 2),
            conv_bn(32, 32),
        )
        self.semantic = nn.Sequential(
            StemBlock(12),
            GatherExpand(12, 16, 2),
            GatherExpand(16, 16),
            GatherExpand(16, 24, 2),
            GatherExpand(24, 24),
            GatherExpand(24, 32, 2),
            ContextEmbedding(32),
        )
        self.aggregate = GuidedAggregation(32)
        self.head = nn.Sequential(conv_bn(32, 48), nn.Dropout(0.1), nn.Conv2d(48, 5, 1))

    def forward(self, image: Tensor) -> Tensor:
        x = self.aggregate(self.detail(image), self.semantic(image))
        return F.interpolate(self.head(x), scale_factor=8, mode="bilinear", align_corners=True)


@collect(CASES, calibrate=True)
def bisenet_v2() -> Built:
    """Two branches that gate each other; depthwise convolutions with a channel multiplier."""
    return BiSeNet(), (torch.randn(1, 3, 96, 96),)


# HRNet


class Exchange(nn.Module):
    """Basic blocks per resolution, then every resolution is the sum of all, resized."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(BasicBlock(c, c), BasicBlock(c, c)) for c in widths
        )
        self.fuse = nn.ModuleList(
            nn.ModuleList(self._path(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    @staticmethod
    def _path(widths: list[int], source: int, target: int) -> nn.Module:
        a, b = widths[source], widths[target]
        if source > target:
            up = nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
            return nn.Sequential(conv_bn(a, b, 1, act=None), up)
        steps = [conv_bn(a, a, 3, 2) for _ in range(target - source - 1)]
        last = [conv_bn(a, b, 3, 2, act=None)] if target > source else []
        return nn.Sequential(*steps, *last)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [
            F.relu(sum(path(x) for path, x in zip(paths, maps, strict=True))) for paths in self.fuse
        ]


class HRNet(nn.Module):
    """HRNetV2: resolutions in parallel, new ones split off the lowest, all concatenated."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 16, 3, 2), conv_bn(16, 16, 3, 2), BasicBlock(16, 32))
        self.start = nn.ModuleList([conv_bn(32, 16), conv_bn(32, 24, 3, 2)])
        self.stage2 = Exchange([16, 24])
        self.third = conv_bn(24, 32, 3, 2)
        self.stage3 = nn.ModuleList(Exchange([16, 24, 32]) for _ in range(2))
        self.head = nn.Sequential(
            nn.Conv2d(72, 72, 1), nn.BatchNorm2d(72), nn.ReLU(), nn.Conv2d(72, classes, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        maps = self.stage2([split(x) for split in self.start])
        maps.append(self.third(maps[-1]))
        for stage in self.stage3:
            maps = stage(maps)
        return self.head(torch.cat([maps[0], *(resize(x, maps[0]) for x in maps[1:])], 1))


@collect(CASES, calibrate=True)
def hrnet_v2() -> Built:
    """Sums across resolutions tie each branch's width to a path from every other branch."""
    return HRNet(), (torch.randn(1, 3, 64, 64),)


# NAFNet


class ChannelNorm(nn.Module):
    """Layer norm over the channels of a map; without a bias, the mean is not subtracted."""

    def __init__(self, channels: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        scale = self.weight.view(1, -1, 1, 1)
        if self.bias is None:
            return x / torch.sqrt(variance + 1e-5) * scale
        return scale * ((x - mean) / (variance + 1e-6).sqrt()) + self.bias.view(1, -1, 1, 1)


class SimpleGate(nn.Module):
    """The product of the two halves of the channels: the only non-linearity."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return first * second


class SimplifiedAttention(nn.Module):
    """A gate per channel with neither activation nor bottleneck."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class NAFBlock(nn.Module):
    """Two gated branches, each added with a scale per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.spatial = nn.Sequential(
            ChannelNorm(channels),
            nn.Conv2d(channels, wide, 1),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
            SimpleGate(),
            SimplifiedAttention(channels),
            nn.Conv2d(channels, channels, 1),
        )
        self.mix = nn.Sequential(
            ChannelNorm(channels),
            nn.Conv2d(channels, wide, 1),
            SimpleGate(),
            nn.Conv2d(channels, channels, 1),
        )
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.spatial(x) * self.beta
        return x + self.mix(x) * self.gamma


class NAFNet(nn.Module):
    """Restoration U-Net: strided 2x2 down, pixel shuffle up, skips and the image added."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.intro, self.ending = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, 3, 3, 1, 1)
        widths = [width, 2 * width]
        self.encoders = nn.ModuleList(NAFBlock(c) for c in widths)
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, 2) for c in widths)
        self.middle = NAFBlock(4 * width)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * c, 4 * c, 1, bias=False), nn.PixelShuffle(2))
            for c in reversed(widths)
        )
        self.decoders = nn.ModuleList(NAFBlock(c) for c in reversed(widths))

    def forward(self, image: Tensor) -> Tensor:
        x = self.intro(image)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(x))
            x = down(skips[-1])
        x = self.middle(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(up(x) + skips.pop())
        return self.ending(x) + image


@collect(CASES, calibrate=True)
def nafnet() -> Built:
    """Channels gated by their own other half, norms over channels, pixel shuffle plus a skip."""
    return NAFNet(), (torch.randn(1, 3, 32, 32),)


# Restormer


class TransposedAttention(nn.Module):
    """Attention between channels of a head, on L2-normalised queries and keys."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        wide = 3 * channels
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
        )
        self.project = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        q, k, v = (
            part.reshape(batch, self.heads, channels // self.heads, height * width)
            for part in self.qkv(x).chunk(3, dim=1)
        )
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        weights = (q @ k.transpose(-2, -1) * self.temperature).softmax(-1)
        return self.project((weights @ v).reshape(batch, channels, height, width))


class GatedFeedForward(nn.Module):
    """A fused pair of depthwise convolutions, one half's GELU gates the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * int(2.66 * channels)
        self.inner = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
        )
        self.project = nn.Conv2d(wide // 2, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.inner(x).chunk(2, dim=1)
        return self.project(F.gelu(first) * second)


def restormer_block(channels: int, heads: int) -> nn.Sequential:
    """Transposed attention and gated feed-forward, each with a bias-free norm and a skip."""
    return nn.Sequential(
        Residual(ChannelNorm(channels, bias=False), TransposedAttention(channels, heads)),
        Residual(ChannelNorm(channels, bias=False), GatedFeedForward(channels)),
    )


class Restormer(nn.Module):
    """Three-level U-Net of such blocks; pixel unshuffle down, shuffle up, skips concatenated."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        a, b, c = width, 2 * width, 4 * width
        self.embed = nn.Conv2d(3, a, 3, padding=1, bias=False)
        self.encoder1, self.encoder2 = restormer_block(a, 1), restormer_block(b, 2)
        self.latent = restormer_block(c, 4)
        self.down1, self.down2 = self._down(a), self._down(b)
        self.up2, self.up1 = self._up(c), self._up(b)
        self.reduce = nn.Conv2d(c, b, 1, bias=False)
        self.decoder2, self.decoder1 = restormer_block(b, 2), restormer_block(b, 1)
        self.refine = restormer_block(b, 1)
        self.output = nn.Conv2d(b, 3, 3, padding=1, bias=False)

    @staticmethod
    def _down(width: int) -> nn.Sequential:
        conv = nn.Conv2d(width, width // 2, 3, padding=1, bias=False)
        return nn.Sequential(conv, nn.PixelUnshuffle(2))

    @staticmethod
    def _up(width: int) -> nn.Sequential:
        conv = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        return nn.Sequential(conv, nn.PixelShuffle(2))

    def forward(self, image: Tensor) -> Tensor:
        x1 = self.encoder1(self.embed(image))
        x2 = self.encoder2(self.down1(x1))
        x = self.latent(self.down2(x2))
        x = self.decoder2(self.reduce(torch.cat((self.up2(x), x2), 1)))
        x = self.decoder1(torch.cat((self.up1(x), x1), 1))
        return self.output(self.refine(x)) + image


@collect(CASES, calibrate=True)
def restormer() -> Built:
    """Attention maps of size channels by channels; pixel unshuffle multiplies the channels."""
    return Restormer(), (torch.randn(1, 3, 32, 32),)


# Diffusion U-Net


class TimeBlock(nn.Module):
    """Residual block with group norm, scaled and shifted per channel by the time embedding."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(
            nn.GroupNorm(4, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * outputs))
        self.norm = nn.GroupNorm(4, outputs)
        self.leave = nn.Sequential(
            nn.SiLU(), nn.Dropout(0.1), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(time)[:, :, None, None].chunk(2, 1)
        return self.skip(x) + self.leave(self.norm(self.enter(x)) * (1 + scale) + shift)


class PixelAttention(nn.Module):
    """Group norm, 1d convolutions over the positions and attention written as einsum."""

    def __init__(self, channels: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(4, channels)
        self.qkv, self.proj = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        flat = x.reshape(batch, channels, -1)
        dim = channels // self.heads
        qkv = self.qkv(self.norm(flat)).reshape(batch * self.heads, 3 * dim, -1)
        q, k, v = qkv.split(dim, 1)
        weights = torch.einsum("bct,bcs->bts", q * dim**-0.25, k * dim**-0.25).softmax(-1)
        out = torch.einsum("bts,bcs->bct", weights, v).reshape(batch, channels, -1)
        return (flat + self.proj(out)).reshape(batch, channels, height, width)


class DiffusionUNet(nn.Module):
    """Denoiser: sinusoidal time embedding, every encoder output concatenated in the decoder."""

    def __init__(self, width: int = 16, time: int = 32) -> None:
        super().__init__()
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.enter = nn.Conv2d(4, width, 3, padding=1)
        self.down1 = TimeBlock(width, width, time)
        self.shrink = nn.Conv2d(width, width, 3, 2, 1)
        self.down2, self.attend_down = TimeBlock(width, 2 * width, time), PixelAttention(2 * width)
        self.mid1, self.mid2 = (TimeBlock(2 * width, 2 * width, time) for _ in range(2))
        self.attend_mid = PixelAttention(2 * width)
        self.up2, self.attend_up = TimeBlock(4 * width, 2 * width, time), PixelAttention(2 * width)
        self.up2b = TimeBlock(3 * width, 2 * width, time)
        self.grow = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.up1, self.up1b = TimeBlock(3 * width, width, time), TimeBlock(2 * width, width, time)
        self.leave = nn.Sequential(
            nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, 4, 3, padding=1)
        )

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        half = self.width // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half) / half)
        angles = step[:, None].float() * frequencies[None]
        time = self.time(torch.cat((torch.cos(angles), torch.sin(angles)), -1))
        skips = [self.enter(x)]
        skips.append(self.down1(skips[-1], time))
        skips.append(self.shrink(skips[-1]))
        skips.append(self.attend_down(self.down2(skips[-1], time)))
        x = self.mid2(self.attend_mid(self.mid1(skips[-1], time)), time)
        x = self.attend_up(self.up2(torch.cat((x, skips.pop()), 1), time))
        x = self.up2b(torch.cat((x, skips.pop()), 1), time)
        x = self.grow(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = self.up1(torch.cat((x, skips.pop()), 1), time)
        return self.leave(self.up1b(torch.cat((x, skips.pop()), 1), time))


@collect(CASES, calibrate=True)
def diffusion_unet() -> Built:
    """Group norms over concatenated skips, modulated by chunks of a linear of the time step."""
    return DiffusionUNet(), (torch.randn(1, 4, 16, 16), torch.tensor([37]))


# RAFT


class FlowEncoder(nn.Module):
    """Residual encoder to an eighth of the resolution, with instance or batch norm."""

    def __init__(self, outputs: int, norm: type[nn.Module]) -> None:
        super().__init__()

        def block(inputs: int, width: int, stride: int) -> nn.Module:
            return BasicNormBlock(inputs, width, stride, norm)

        self.stem = nn.Sequential(nn.Conv2d(3, 16, 7, 2, 3), norm(16), nn.ReLU())
        self.blocks = nn.Sequential(block(16, 16, 1), block(16, 24, 2), block(24, 32, 2))
        self.out = nn.Conv2d(32, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.blocks(self.stem(x)))


class BasicNormBlock(nn.Module):
    """RAFT's residual block: convolutions with bias, any norm, ReLU before the sum as well."""

    def __init__(self, inputs: int, width: int, stride: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 3, stride, 1),
            norm(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            norm(width),
            nn.ReLU(),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride), norm(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.body(x))


class SeparableGRU(nn.Module):
    """Convolutional GRU, a horizontal pass then a vertical one."""

    def __init__(self, hidden: int, inputs: int) -> None:
        super().__init__()
        self.passes = nn.ModuleList(
            nn.ModuleDict(
                {gate: nn.Conv2d(hidden + inputs, hidden, size, padding=pad) for gate in "zrq"}
            )
            for size, pad in (((1, 5), (0, 2)), ((5, 1), (2, 0)))
        )

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        for gates in self.passes:
            hx = torch.cat((h, x), 1)
            z, r = gates["z"](hx).sigmoid(), gates["r"](hx).sigmoid()
            q = gates["q"](torch.cat((r * h, x), 1)).tanh()
            h = (1 - z) * h + z * q
        return h


class MotionEncoder(nn.Module):
    """Correlation and flow, each convolved, concatenated; the raw flow is appended again."""

    def __init__(self, correlations: int) -> None:
        super().__init__()
        self.correlation, self.flow1 = nn.Conv2d(correlations, 24, 1), nn.Conv2d(2, 16, 7, 1, 3)
        self.flow2, self.conv = nn.Conv2d(16, 8, 3, 1, 1), nn.Conv2d(24 + 8, 22, 3, 1, 1)

    def forward(self, flow: Tensor, correlation: Tensor) -> Tensor:
        c = F.relu(self.correlation(correlation))
        f = F.relu(self.flow2(F.relu(self.flow1(flow))))
        return torch.cat((F.relu(self.conv(torch.cat((c, f), 1))), flow), 1)


class RAFT(nn.Module):
    """Optical flow refined twice by a GRU from lookups in a pyramid of all-pairs correlations."""

    def __init__(self, radius: int = 2, levels: int = 3, hidden: int = 24) -> None:
        super().__init__()
        self.radius, self.levels, self.hidden = radius, levels, hidden
        self.features = FlowEncoder(32, nn.InstanceNorm2d)
        self.context = FlowEncoder(2 * hidden, nn.BatchNorm2d)
        self.motion = MotionEncoder(levels * (2 * radius + 1) ** 2)
        self.gru = SeparableGRU(hidden, hidden + 24)
        self.flow_head = nn.Sequential(
            nn.Conv2d(hidden, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 2, 3, padding=1)
        )
        self.mask = nn.Sequential(
            nn.Conv2d(hidden, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64 * 9, 1)
        )

    def pyramid(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """Correlation of all pairs of positions, average-pooled over the second image."""
        batch, channels, height, width = first.shape
        a, b = first.view(batch, channels, -1), second.view(batch, channels, -1)
        volume = (a.transpose(1, 2) @ b) / math.sqrt(channels)
        maps = [volume.reshape(batch * height * width, 1, height, width)]
        for _ in range(self.levels - 1):
            maps.append(F.avg_pool2d(maps[-1], 2, 2))
        return maps

    def lookup(self, maps: list[Tensor], points: Tensor) -> Tensor:
        """Bilinear samples in a square around each point, at all levels."""
        batch, _, height, width = points.shape
        side = 2 * self.radius + 1
        square = grid_points(side, side, -self.radius)
        outs = []
        for i, level in enumerate(maps):
            center = points.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2) / 2**i
            extent = torch.tensor([level.shape[3] - 1, level.shape[2] - 1])
            grid = 2 * (center + square) / extent - 1
            sampled = F.grid_sample(level, grid, align_corners=True)
            outs.append(sampled.view(batch, height, width, -1))
        return torch.cat(outs, -1).permute(0, 3, 1, 2).contiguous()

    @staticmethod
    def upsample(flow: Tensor, mask: Tensor) -> Tensor:
        """Eightfold, each fine value a convex combination of nine coarse neighbours."""
        batch, _, height, width = flow.shape
        mask = mask.view(batch, 1, 9, 8, 8, height, width).softmax(2)
        patches = F.unfold(8 * flow, [3, 3], padding=1).view(batch, 2, 9, 1, 1, height, width)
        fine = (mask * patches).sum(2).permute(0, 1, 4, 2, 5, 3)
        return fine.reshape(batch, 2, 8 * height, 8 * width)

    def forward(self, image1: Tensor, image2: Tensor) -> Tensor:
        image1, image2 = 2 * image1 - 1, 2 * image2 - 1
        first, second = self.features(torch.cat((image1, image2), 0)).chunk(2, 0)
        maps = self.pyramid(first, second)
        hidden, context = self.context(image1).split(self.hidden, 1)
        hidden, context = hidden.tanh(), context.relu()
        batch, _, height, width = first.shape
        start = grid_points(height, width).permute(2, 0, 1)[None].repeat(batch, 1, 1, 1)
        points = start
        for _ in range(2):
            motion = self.motion(points - start, self.lookup(maps, points))
            hidden = self.gru(hidden, torch.cat((context, motion), 1))
            points = points + self.flow_head(hidden)
        return self.upsample(points - start, 0.25 * self.mask(hidden))


@collect(CASES, calibrate=True)
def raft() -> Built:
    """All-pairs correlation sampled around the flow, convolutional GRU, convex upsampling."""
    return RAFT(), (torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64))

"""Small, randomly initialised detectors with the peculiar operators of those on edge devices.

    python tools/zoo_coverage.py --zoo tools/zoo/dense_vision.py [CASE ...]

Each follows the published topology at reduced width, with the decoding that is exported along.
The cases were written before any of them was run through the pruner. Segmentation, restoration,
generation and optical flow are in pixel_vision.py, classifiers in vision.py.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from blocks import BasicBlock, Residual, conv_bn, grid_points, inverted_residual
from generic import Built, collect

CASES: dict[str, dict] = {}


def silu(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """The convolution, batch norm and SiLU of the YOLO and EfficientDet families."""
    return conv_bn(inputs, outputs, kernel, stride, groups, act=nn.SiLU)


# YOLOv5


class Focus(nn.Module):
    """Four interleaved slices of the image, concatenated to channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = silu(4 * inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        slices = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        return self.conv(torch.cat(slices, 1))


def bottleneck(channels: int, skip: bool = True, kernel: int = 1) -> nn.Module:
    """Two convolutions, with the identity added to the second's output."""
    body = [silu(channels, channels, kernel), silu(channels, channels, 3)]
    return Residual(*body) if skip else nn.Sequential(*body)


class C3(nn.Module):
    """Cross-stage partial block: two 1x1 convolutions of the input, one of them goes deep."""

    def __init__(
        self, inputs: int, outputs: int, depth: int = 1, skip: bool = True, kernel: int = 1
    ) -> None:
        super().__init__()
        hidden = outputs // 2
        self.cv1, self.cv2 = silu(inputs, hidden), silu(inputs, hidden)
        self.cv3 = silu(2 * hidden, outputs)
        self.m = nn.Sequential(*(bottleneck(hidden, skip, kernel) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class SPPF(nn.Module):
    """The same max pool three times in a row, all four stages concatenated."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = silu(inputs, inputs // 2), silu(inputs // 2 * 4, outputs)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        outs = [self.cv1(x)]
        for _ in range(3):
            outs.append(self.pool(outs[-1]))
        return self.cv2(torch.cat(outs, 1))


class PathAggregation(nn.Module):
    """Top-down then bottom-up fusion of three levels by concatenation, as in YOLOv5 to v11."""

    def __init__(self, widths: list[int], block: type[nn.Module], reduce: bool) -> None:
        super().__init__()
        a, b, c = widths
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.reduce5 = silu(c, b) if reduce else nn.Identity()
        self.reduce4 = silu(b, a) if reduce else nn.Identity()
        top, middle = (b, a) if reduce else (c, b)
        self.top4, self.top3 = block(b + top, b, skip=False), block(a + middle, a, skip=False)
        self.down3, self.down4 = silu(a, a, 3, 2), silu(b, b, 3, 2)
        self.out4 = block(a + middle, b, skip=False)
        self.out5 = block(b + top, c, skip=False)

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor) -> list[Tensor]:
        top = self.reduce5(p5)
        middle = self.reduce4(self.top4(torch.cat((self.up(top), p4), 1)))
        n3 = self.top3(torch.cat((self.up(middle), p3), 1))
        n4 = self.out4(torch.cat((self.down3(n3), middle), 1))
        n5 = self.out5(torch.cat((self.down4(n4), top), 1))
        return [n3, n4, n5]


class YoloV5(nn.Module):
    """Anchor-based YOLO: each output convolution holds (anchor, box and score) pairs."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.outputs = classes + 5
        self.stem = nn.Sequential(Focus(3, 12), silu(12, 16, 3, 2), C3(16, 16))
        self.stage3 = nn.Sequential(silu(16, 24, 3, 2), C3(24, 24, 2))
        self.stage4 = nn.Sequential(silu(24, 32, 3, 2), C3(32, 32, 2))
        self.stage5 = nn.Sequential(silu(32, 48, 3, 2), SPPF(48, 48), C3(48, 48, skip=False))
        self.neck = PathAggregation([24, 32, 48], C3, reduce=True)
        self.detect = nn.ModuleList(nn.Conv2d(c, 3 * self.outputs, 1) for c in (24, 32, 48))
        self.register_buffer("anchors", torch.rand(3, 1, 3, 1, 1, 2) * 32 + 8)

    def forward(self, image: Tensor) -> Tensor:
        p3 = self.stage3(self.stem(image))
        p4 = self.stage4(p3)
        decoded = []
        for i, x in enumerate(self.neck(p3, p4, self.stage5(p4))):
            batch, _, height, width = x.shape
            y = self.detect[i](x).view(batch, 3, self.outputs, height, width)
            y = y.permute(0, 1, 3, 4, 2).contiguous().sigmoid()
            xy, wh, scores = y.split((2, 2, self.outputs - 4), 4)
            xy = (xy * 2 + grid_points(height, width, -0.5)) * 2 ** (i + 3)
            wh = (wh * 2) ** 2 * self.anchors[i]
            decoded.append(torch.cat((xy, wh, scores), 4).view(batch, -1, self.outputs))
        return torch.cat(decoded, 1)


@collect(CASES, calibrate=True)
def yolov5() -> Built:
    """Focus slices, CSP blocks, SPPF and heads viewed as (anchor, output) then decoded."""
    return YoloV5(), (torch.rand(1, 3, 64, 64),)


# YOLO11


class C3k2(nn.Module):
    """Split in two, run blocks in a chain (CSP ones if deep), concatenate every step."""

    def __init__(self, inputs: int, outputs: int, skip: bool = True, deep: bool = False) -> None:
        super().__init__()
        hidden = outputs // 2
        self.cv1 = silu(inputs, 2 * hidden)
        block = C3(hidden, hidden, 2, skip, 3) if deep else bottleneck(hidden, skip, 3)
        self.m = nn.ModuleList([block])
        self.cv2 = silu(3 * hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        for block in self.m:
            parts.append(block(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class PositionalAttention(nn.Module):
    """Attention with half-width keys; a depthwise convolution of the values encodes position."""

    def __init__(self, channels: int, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.head_dim, self.key_dim = heads, channels // heads, channels // heads // 2
        outputs = channels + 2 * self.key_dim * heads
        self.qkv = conv_bn(channels, outputs, 1, act=None)
        self.proj = conv_bn(channels, channels, 1, act=None)
        self.pe = conv_bn(channels, channels, 3, groups=channels, act=None)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(x).view(batch, self.heads, -1, height * width)
        q, k, v = qkv.split([self.key_dim, self.key_dim, self.head_dim], 2)
        weights = (q.transpose(-2, -1) @ k * self.key_dim**-0.5).softmax(-1)
        out = (v @ weights.transpose(-2, -1)).view(batch, channels, height, width)
        return self.proj(out + self.pe(v.reshape(batch, channels, height, width)))


class C2PSA(nn.Module):
    """Half of the channels pass through attention and feed-forward, the other half pass by."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.hidden = hidden
        self.cv1, self.cv2 = silu(channels, channels), silu(channels, channels)
        self.m = nn.Sequential(
            Residual(PositionalAttention(hidden)),
            Residual(silu(hidden, 2 * hidden), conv_bn(2 * hidden, hidden, 1, act=None)),
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.cv1(x).split((self.hidden, self.hidden), 1)
        return self.cv2(torch.cat((a, self.m(b)), 1))


class Yolo11(nn.Module):
    """Anchor-free YOLO; boxes are expectations over distance bins (DFL, a frozen convolution)."""

    def __init__(self, classes: int = 4, bins: int = 8) -> None:
        super().__init__()
        self.classes, self.bins = classes, bins
        widths = [24, 32, 48]
        self.stem = nn.Sequential(silu(3, 12, 3, 2), silu(12, 16, 3, 2), C3k2(16, 16))
        self.stage3 = nn.Sequential(silu(16, 24, 3, 2), C3k2(24, 24))
        self.stage4 = nn.Sequential(silu(24, 32, 3, 2), C3k2(32, 32, deep=True))
        self.stage5 = nn.Sequential(
            silu(32, 48, 3, 2), C3k2(48, 48, deep=True), SPPF(48, 48), C2PSA(48)
        )
        self.neck = PathAggregation(widths, C3k2, reduce=False)
        self.boxes = nn.ModuleList(
            nn.Sequential(silu(c, 32, 3), silu(32, 32, 3), nn.Conv2d(32, 4 * bins, 1))
            for c in widths
        )
        self.scores = nn.ModuleList(
            nn.Sequential(
                silu(c, c, 3, groups=c),
                silu(c, 24),
                silu(24, 24, 3, groups=24),
                silu(24, 24),
                nn.Conv2d(24, classes, 1),
            )
            for c in widths
        )
        self.dfl = nn.Conv2d(bins, 1, 1, bias=False).requires_grad_(False)
        self.dfl.weight.copy_(torch.arange(bins, dtype=torch.float).view(1, bins, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        p3 = self.stage3(self.stem(image))
        p4 = self.stage4(p3)
        raw, points, strides = [], [], []
        for i, x in enumerate(self.neck(p3, p4, self.stage5(p4))):
            batch, _, height, width = x.shape
            y = torch.cat((self.boxes[i](x), self.scores[i](x)), 1)
            raw.append(y.view(batch, 4 * self.bins + self.classes, -1))
            points.append(grid_points(height, width, 0.5).view(-1, 2))
            strides.append(torch.full((height * width, 1), 2.0 ** (i + 3)))
        box, score = torch.cat(raw, 2).split((4 * self.bins, self.classes), 1)
        batch, _, count = box.shape
        box = self.dfl(box.view(batch, 4, self.bins, count).transpose(2, 1).softmax(1))
        low, high = box.view(batch, 4, count).chunk(2, 1)
        anchors, scale = torch.cat(points).transpose(0, 1), torch.cat(strides).transpose(0, 1)
        corner1, corner2 = anchors - low, anchors + high
        box = torch.cat(((corner1 + corner2) / 2, corner2 - corner1), 1) * scale
        return torch.cat((box, score.sigmoid()), 1)


@collect(CASES, calibrate=True)
def yolo11() -> Built:
    """Attention on half of the channels, depthwise decoupled heads, softmax over distance bins."""
    return Yolo11(), (torch.rand(1, 3, 64, 64),)


# EfficientDet


class WeightedFusion(nn.Module):
    """Sum of feature maps with ReLUed, normalised scalar weights, then a separable convolution."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(count))
        self.conv = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, *maps: Tensor) -> Tensor:
        weights = F.relu(self.weights)
        weights = weights / (weights.sum() + 1e-4)
        return self.conv((torch.stack(maps, -1) * weights).sum(-1))


class BiFPN(nn.Module):
    """One bidirectional pyramid layer over any number of levels of one width."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.top_down = nn.ModuleList(WeightedFusion(channels, 2) for _ in range(levels - 1))
        self.bottom_up = nn.ModuleList(
            WeightedFusion(channels, 3 if i < levels - 2 else 2) for i in range(levels - 1)
        )
        self.down = nn.MaxPool2d(3, 2, 1)

    def forward(self, *maps: Tensor) -> list[Tensor]:
        inner = [maps[-1]]
        for fusion, x in zip(self.top_down, reversed(maps[:-1]), strict=True):
            inner.insert(0, fusion(x, F.interpolate(inner[0], scale_factor=2, mode="nearest")))
        outs = [inner[0]]
        for i, fusion in enumerate(self.bottom_up, 1):
            extra = [maps[i]] if i < len(maps) - 1 else []
            outs.append(fusion(*extra, inner[i], self.down(outs[-1])))
        return outs


class DetectionHead(nn.Module):
    """Separable convolutions shared by all levels, but a batch norm of its own per level."""

    def __init__(self, channels: int, outputs: int, levels: int, depth: int = 2) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
                nn.Conv2d(channels, channels, 1),
            )
            for _ in range(depth)
        )
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(depth)) for _ in range(levels)
        )
        self.predict = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, 9 * outputs, 1),
        )
        self.outputs = outputs

    def forward(self, maps: list[Tensor]) -> Tensor:
        outs = []
        for x, norms in zip(maps, self.norms, strict=True):
            for conv, norm in zip(self.convs, norms, strict=True):
                x = F.silu(norm(conv(x)))
            x = self.predict(x).permute(0, 2, 3, 1).contiguous()
            outs.append(x.view(x.shape[0], -1, self.outputs))
        return torch.cat(outs, 1)


class EfficientDet(nn.Module):
    """EfficientNet levels, two BiFPN layers, and two heads applied at every level."""

    def __init__(self, classes: int = 4, channels: int = 24) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            [
                nn.Sequential(
                    silu(3, 16, 3, 2),
                    inverted_residual(16, 16, expand=1, se=4),
                    inverted_residual(16, 24, 2, se=4),
                ),
                inverted_residual(24, 32, 2, kernel=5, se=6),
                nn.Sequential(inverted_residual(32, 48, 2, se=8), inverted_residual(48, 48, se=12)),
            ]
        )
        self.lateral = nn.ModuleList(conv_bn(c, channels, 1, act=None) for c in (24, 32, 48))
        self.extra = nn.Sequential(conv_bn(48, channels, 1, act=None), nn.MaxPool2d(3, 2, 1))
        self.pyramid = nn.ModuleList(BiFPN(channels, 5) for _ in range(2))
        self.scores = DetectionHead(channels, classes, 5)
        self.boxes = DetectionHead(channels, 4, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            maps.append(lateral(x))
        maps.append(self.extra(x))
        maps.append(F.max_pool2d(maps[-1], 3, 2, 1))
        for layer in self.pyramid:
            maps = layer(*maps)
        return self.scores(maps).sigmoid(), self.boxes(maps)


@collect(CASES, calibrate=True)
def efficientdet() -> Built:
    """Weighted fusion of a stack of maps; head convolutions shared by levels, norms not."""
    return EfficientDet(), (torch.randn(1, 3, 64, 64),)


# SSD


class L2Norm(nn.Module):
    """Divides by the norm over channels and scales each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 20.0))

    def forward(self, x: Tensor) -> Tensor:
        norm = x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10
        return self.weight.view(1, -1, 1, 1).expand_as(x) * (x / norm)


def vgg(*layers: int | str) -> list[nn.Module]:
    """3x3 convolutions with ReLU of the widths given; "M" pools, "C" pools with ceil."""
    modules: list[nn.Module] = []
    inputs = int(layers[0])
    for layer in layers[1:]:
        if isinstance(layer, str):
            modules.append(nn.MaxPool2d(2, 2, ceil_mode=layer == "C"))
        else:
            modules += [nn.Conv2d(inputs, layer, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = layer
    return modules


class SSD(nn.Module):
    """SSD on VGG without batch norm: boxes of priors of four feature maps, decoded."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.classes = classes
        self.base = nn.Sequential(*vgg(3, 16, 16, "M", 24, 24, "M", 32, 32, 32, "C", 48, 48, 48))
        self.norm = L2Norm(48)
        self.rest = nn.Sequential(
            nn.MaxPool2d(2, 2),
            *vgg(48, 48, 48, 48),
            nn.MaxPool2d(3, 1, 1),
            nn.Conv2d(48, 64, 3, padding=3, dilation=3),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 1),
            nn.ReLU(inplace=True),
        )
        self.extras = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, 16, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(16, 32, 3, 2, 1),
                nn.ReLU(inplace=True),
            )
            for inputs in (64, 32)
        )
        widths, counts, sizes = (48, 64, 32, 32), (4, 6, 6, 4), (8, 4, 2, 1)
        shapes = list(zip(widths, counts, strict=True))
        self.loc = nn.ModuleList(nn.Conv2d(c, 4 * n, 3, padding=1) for c, n in shapes)
        self.conf = nn.ModuleList(nn.Conv2d(c, classes * n, 3, padding=1) for c, n in shapes)
        total = sum(n * size * size for n, size in zip(counts, sizes, strict=True))
        self.register_buffer("priors", torch.rand(total, 4) * 0.5 + 0.25)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.base(x)
        maps = [self.norm(x)]
        x = self.rest(x)
        maps.append(x)
        for extra in self.extras:
            x = extra(x)
            maps.append(x)
        loc, conf = (
            torch.cat(
                [
                    head(m).permute(0, 2, 3, 1).contiguous().flatten(1)
                    for m, head in zip(maps, heads, strict=True)
                ],
                1,
            )
            for heads in (self.loc, self.conf)
        )
        loc = loc.view(loc.shape[0], -1, 4)
        scores = conf.view(conf.shape[0], -1, self.classes).softmax(-1)
        centers = self.priors[:, :2] + loc[:, :, :2] * 0.1 * self.priors[:, 2:]
        sizes = self.priors[:, 2:] * torch.exp(loc[:, :, 2:] * 0.2)
        corners = centers - sizes / 2
        return torch.cat((corners, corners + sizes), 2), scores


@collect(CASES, calibrate=True)
def ssd_vgg() -> Built:
    """Channel-wise L2 norm with a scale, and heads of several maps flattened and concatenated."""
    return SSD(), (torch.randn(1, 3, 64, 64),)


# CenterNet on DLA


class Tree(nn.Module):
    """DLA's tree: subtrees whose outputs a root convolution aggregates with all its ancestors."""

    def __init__(
        self,
        levels: int,
        inputs: int,
        outputs: int,
        stride: int,
        root: int = 0,
        level_root: bool = False,
    ) -> None:
        super().__init__()
        self.levels, self.level_root = levels, level_root
        root += 2 * outputs if levels == 1 else 0
        root += inputs if level_root else 0
        self.down = nn.MaxPool2d(stride, stride) if stride > 1 else nn.Identity()
        self.project: nn.Module = nn.Identity()
        if levels == 1:
            if inputs != outputs:
                self.project = conv_bn(inputs, outputs, 1, act=None)
            self.tree1: nn.Module = BasicBlock(inputs, outputs, stride, own_shortcut=False)
            self.tree2: nn.Module = BasicBlock(outputs, outputs)
            self.root = conv_bn(root, outputs, 1)
        else:
            self.tree1 = Tree(levels - 1, inputs, outputs, stride)
            self.tree2 = Tree(levels - 1, outputs, outputs, 1, root + outputs)

    def forward(self, x: Tensor, children: tuple[Tensor, ...] = ()) -> Tensor:
        bottom = self.down(x)
        if self.level_root:
            children = (*children, bottom)
        if self.levels == 1:
            x1 = self.tree1(x, self.project(bottom))
            return self.root(torch.cat((self.tree2(x1), x1, *children), 1))
        x1 = self.tree1(x)
        return self.tree2(x1, (*children, x1))


class AggregateUp(nn.Module):
    """Iterative aggregation: project, upsample by a depthwise transposed convolution, add."""

    def __init__(self, inputs: list[int], outputs: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(conv_bn(width, outputs) for width in inputs)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(outputs, outputs, 4, 2, 1, groups=outputs, bias=False)
            for _ in inputs
        )
        self.node = nn.ModuleList(conv_bn(outputs, outputs) for _ in inputs)

    def forward(self, first: Tensor, *rest: Tensor) -> list[Tensor]:
        outs = [first]
        for x, project, up, node in zip(rest, self.project, self.up, self.node, strict=True):
            outs.append(node(up(project(x)) + outs[-1]))
        return outs


class CenterNet(nn.Module):
    """Objects as peaks of a heatmap: DLA, aggregation upwards, three heads, peaks by max pool."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.base = nn.Sequential(conv_bn(3, 12, 7), conv_bn(12, 12), conv_bn(12, 16, 3, 2))
        self.level2 = Tree(1, 16, 24, 2)
        self.level3 = Tree(2, 24, 32, 2, level_root=True)
        self.level4 = Tree(1, 32, 48, 2, level_root=True)
        self.up1 = AggregateUp([48], 32)
        self.up0 = AggregateUp([32, 32], 24)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, outputs, 1))
            for outputs in (classes, 2, 2)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p2 = self.level2(self.base(image))
        p3 = self.level3(p2)
        x = self.up0(p2, *self.up1(p3, self.level4(p3)))[-1]
        heat, size, offset = (head(x) for head in self.heads)
        heat = heat.sigmoid()
        peaks = (F.max_pool2d(heat, 3, 1, 1) == heat).float()
        return heat * peaks, size, offset


@collect(CASES, calibrate=True)
def centernet_dla() -> Built:
    """Concats over ancestors in a tree, depthwise transposed convolutions, peaks by comparison."""
    return CenterNet(), (torch.randn(1, 3, 64, 64),)

"""The building blocks that several networks of this folder share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    act: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution ("same" padding, no bias), batch norm and activation."""
    padding = dilation * (kernel - 1) // 2
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class SqueezeExcite(nn.Module):
    """A gate per channel out of the global mean, by two 1x1 convolutions."""

    def __init__(self, channels: int, hidden: int, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.act = act()
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


def projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    """What brings a shortcut to the shape of a residual block's output, if anything must."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return conv_bn(inputs, outputs, 1, stride, act=None)


class BasicBlock(nn.Module):
    """The ResNet-18 block; the shortcut can be handed in (DLA) and a gate put before the sum."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int = 1,
        dilation: int = 1,
        gate: nn.Module | None = None,
        own_shortcut: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = conv_bn(inputs, outputs, 3, stride, dilation=dilation)
        self.conv2 = conv_bn(outputs, outputs, 3, dilation=dilation, act=None)
        self.gate = gate or nn.Identity()
        self.shortcut = projection(inputs, outputs, stride) if own_shortcut else nn.Identity()

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if residual is None:
            residual = self.shortcut(x)
        return F.relu(self.gate(self.conv2(self.conv1(x))) + residual)


def inverted_residual(
    inputs: int,
    outputs: int,
    stride: int = 1,
    expand: int = 4,
    kernel: int = 3,
    act: type[nn.Module] = nn.SiLU,
    se: int = 0,
) -> nn.Module:
    """MBConv: expand, depthwise, optional squeeze-excitation of width se, linear projection."""
    hidden = inputs * expand
    body = [
        conv_bn(inputs, hidden, 1, act=act),
        conv_bn(hidden, hidden, kernel, stride, groups=hidden, act=act),
        SqueezeExcite(hidden, se, act) if se else nn.Identity(),
        conv_bn(hidden, outputs, 1, act=None),
    ]
    return Residual(*body) if stride == 1 and inputs == outputs else nn.Sequential(*body)


def classifier(channels: int, classes: int = 10) -> nn.Sequential:
    """Global average pool and a linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def grid_points(height: int, width: int, offset: float = 0.0) -> Tensor:
    """(height, width, 2) positions x, y of the cells of a feature map."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack((x, y), 2).float() + offset


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, time, heads * dim) to (batch, heads, time, dim)."""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """The inverse of split_heads."""
    return x.transpose(1, 2).flatten(2)

"""Convolutions in one to three dimensions, forward and transposed."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from edgeprune.onnx_import.operators.padding import Window, window
from edgeprune.onnx_import.registry import Call, operator

_FORWARD: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@operator("Conv", weights=(1, 2))
def convolution(c: Call) -> Tensor:
    """Padding unlike at both ends is done before."""
    x, weight, bias = c.tensor(0), c.tensor(1), c.optional(2)
    rank = weight.dim() - 2
    function = _function(c, _FORWARD, rank)
    w = window(c, tuple(weight.shape[2:]), tuple(x.shape[2:]))
    padding = w.begin
    if not w.symmetric:
        x, padding = w.padded(x), (0,) * rank
    made: Tensor = function(x, weight, bias, w.stride, padding, w.dilation, c.attribute("group", 1))
    return made


@operator("ConvTranspose", weights=(1, 2))
def transposed_convolution(c: Call) -> Tensor:
    """Padding unlike at both ends is cut off behind."""
    x, weight, bias = c.tensor(0), c.tensor(1), c.optional(2)
    rank = weight.dim() - 2
    function = _function(c, _TRANSPOSED, rank)
    w = window(c, tuple(weight.shape[2:]), tuple(x.shape[2:]))
    extra = tuple(c.attribute("output_padding") or [0] * rank)
    begin, end = _cut(c, w, extra, tuple(x.shape[2:]))
    inside = tuple(min(pair) for pair in zip(begin, end))
    if any(n < 0 for n in inside):
        c.fail("asks for an output larger than it makes; use output_padding")
    groups = c.attribute("group", 1)
    made: Tensor = function(x, weight, bias, w.stride, inside, extra, groups, w.dilation)
    for dim, (low, high) in enumerate(zip(begin, end)):
        low, high = low - inside[dim], high - inside[dim]
        if low or high:
            made = made.narrow(dim + 2, low, made.shape[dim + 2] - low - high)
    return made


def _cut(
    c: Call, w: Window, extra: tuple[int, ...], space: tuple[Any, ...]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What is cut off at both ends, as padding or so that the outputs have the sizes asked for."""
    mode, asked = c.attribute("auto_pad", "NOTSET"), c.attribute("output_shape")
    if asked is None and mode not in ("SAME_UPPER", "SAME_LOWER"):
        return w.begin, w.end
    wanted = asked or [size * stride for size, stride in zip(space, w.stride)]
    totals = [
        w.stride[d] * (space[d] - 1) + extra[d] + w.reach(d) - wanted[d] for d in range(len(space))
    ]
    small = tuple(total // 2 for total in totals)
    large = tuple(total - half for total, half in zip(totals, small))
    return (small, large) if mode == "SAME_UPPER" else (large, small)


def _function(c: Call, functions: dict[int, Any], rank: int) -> Any:
    if rank not in functions:
        c.fail(f"runs over {rank} spatial dimensions; one to three can be captured")
    return functions[rank]

"""How convolutions and pools pad: by numbers of both ends, or so that sizes come out the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from edgeprune.onnx_import.registry import Call


@dataclass(frozen=True)
class Window:
    """A window that slides over space: a number for each spatial dimension in every field."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[Any, ...]
    end: tuple[Any, ...]

    @property
    def symmetric(self) -> bool:
        """Whether both ends are padded alike."""
        return self.begin == self.end

    def reach(self, dim: int) -> int:
        """How many positions the kernel spans."""
        return (self.kernel[dim] - 1) * self.dilation[dim] + 1

    def padded(self, x: Tensor, value: float = 0.0) -> Tensor:
        """The input with its padding."""
        return F.pad(x, pad_arguments(self.begin, self.end), value=value)


def pad_arguments(begin: Sequence[Any], end: Sequence[Any]) -> list[Any]:
    """In torch's order: the last dimension first."""
    return [n for pair in zip(reversed(begin), reversed(end)) for n in pair]


def window(c: Call, kernel: Sequence[int], space: Sequence[Any]) -> Window:
    """The window that a node's attributes describe, over an input of these sizes."""
    rank = len(kernel)
    stride = tuple(c.attribute("strides") or [1] * rank)
    dilation = tuple(c.attribute("dilations") or [1] * rank)
    bare = Window(tuple(kernel), stride, dilation, (0,) * rank, (0,) * rank)
    mode = c.attribute("auto_pad", "NOTSET")
    if mode == "VALID":
        return bare
    if mode == "NOTSET":
        pads = list(c.attribute("pads") or [0] * (2 * rank))
        begin, end = pads[:rank], pads[rank:]
    else:
        totals = [_same(size, bare, dim) for dim, size in enumerate(space)]
        small = [total // 2 for total in totals]
        large = [total - half for total, half in zip(totals, small)]
        begin, end = (small, large) if mode == "SAME_UPPER" else (large, small)
    return Window(tuple(kernel), stride, dilation, tuple(begin), tuple(end))


def _same(size: Any, bare: Window, dim: int) -> Any:
    """Padding of both ends together that leaves one output for each stride."""
    stride, reach = bare.stride[dim], bare.reach(dim)
    if stride == 1:
        return reach - 1
    outputs = (size + stride - 1) // stride
    return max((outputs - 1) * stride + reach - size, 0)

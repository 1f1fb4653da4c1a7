"""Pools over space."""

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeprune.onnx_import.operators.padding import Window, window
from edgeprune.onnx_import.registry import Call, operator
from edgeprune.onnx_import.types import as_type

_MAX: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@operator("MaxPool")
def max_pool(c: Call) -> Any:
    """Padding is below every number."""
    x = c.tensor(0)
    w, up = _window(c, x), bool(c.attribute("ceil_mode", 0))
    function = _function(c, _MAX, w)
    padding = w.begin
    if not w.symmetric or any(2 * p > k for p, k in zip(w.begin, w.kernel)):
        x, padding = _padded(x, w, up), (0,) * len(w.kernel)
        up = False
    floating = x if x.is_floating_point() else x.float()
    made = function(floating, w.kernel, w.stride, padding, w.dilation, up,
                    len(c.node.outputs) > 1)  # fmt: skip
    if len(c.node.outputs) < 2:
        return as_type(made, x.dtype)
    if padding != w.begin:
        c.fail("gives indices with padding unlike at both ends; export the model without them")
    return as_type(made[0], x.dtype), _indices(c, made[1], x)


def _padded(x: Tensor, w: Window, up: bool) -> Tensor:
    """The input with its padding, and what rounding up needs behind it."""
    end = [n + more for n, more in zip(w.end, _behind(x, w))] if up else w.end
    lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    return replace(w, end=tuple(end)).padded(x, lowest)


def _outputs(size: Any, w: Window, dim: int) -> Any:
    """How many windows there are where their number is rounded up."""
    free = size + w.begin[dim] + w.end[dim] - w.reach(dim)
    outputs = (free + w.stride[dim] - 1) // w.stride[dim] + 1
    starts_outside = (outputs - 1) * w.stride[dim] >= size + w.begin[dim]
    return outputs - 1 if starts_outside else outputs


def _indices(c: Call, inside: Tensor, x: Tensor) -> Tensor:
    """Indices into the whole input, of those into a channel's positions."""
    if c.attribute("storage_order", 0):
        c.fail("numbers positions column by column; export the model without indices")
    channels = x.shape[0] * x.shape[1]
    first = torch.arange(channels) * math.prod(x.shape[2:])
    return inside + first.reshape([x.shape[0], x.shape[1]] + [1] * (x.dim() - 2))


@operator("AveragePool")
def average_pool(c: Call) -> Tensor:
    """Padding counts as zeros, or not at all."""
    x = c.tensor(0)
    w, up = _window(c, x), bool(c.attribute("ceil_mode", 0))
    if any(d != 1 for d in w.dilation):
        c.fail("averages over a dilated window, which cannot be captured; use a convolution")
    function = _function(c, _AVERAGE, w)
    counted = bool(c.attribute("count_include_pad", 0))
    if w.symmetric and all(2 * p <= k for p, k in zip(w.begin, w.kernel)):
        made: Tensor = function(x, w.kernel, w.stride, w.begin, up, counted)
        return made
    ones = torch.ones([1, 1, *x.shape[2:]], dtype=x.dtype)
    inside = w.padded(ones, 1.0 if counted else 0.0)
    if up:
        extra = _behind(x, w)
        outside = [n for size in reversed(extra) for n in (0, size)]
        x, inside = F.pad(w.padded(x), outside), F.pad(inside, outside)
    else:
        x = w.padded(x)
    share = function(inside, w.kernel, w.stride)
    mean: Tensor = function(x, w.kernel, w.stride) / share
    return mean


def _behind(x: Tensor, w: Window) -> list[Any]:
    """What rounding up needs behind the padding."""
    extra = []
    for dim in range(len(w.kernel)):
        size = x.shape[dim + 2] + w.begin[dim] + w.end[dim]
        outputs = _outputs(x.shape[dim + 2], w, dim)
        extra.append(max((outputs - 1) * w.stride[dim] + w.reach(dim) - size, 0))
    return extra


@operator("LpPool")
def lp_pool(c: Call) -> Tensor:
    """The p-norm of each window."""
    x = c.tensor(0)
    w, p = _window(c, x), float(c.attribute("p", 2))
    if any(d != 1 for d in w.dilation) or c.attribute("ceil_mode", 0):
        c.fail("takes norms over dilated windows or rounds their number up; use a convolution")
    powers = w.padded(x.abs().pow(p))
    sums = _function(c, _AVERAGE, w)(powers, w.kernel, w.stride) * math.prod(w.kernel)
    norms: Tensor = sums.pow(1 / p)
    return norms


@operator("GlobalAveragePool")
def global_average_pool(c: Call) -> Tensor:
    """The mean over space."""
    x = c.tensor(0)
    return x.mean(_space(x), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(c: Call) -> Tensor:
    """The largest number over space."""
    x = c.tensor(0)
    return x.amax(_space(x), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(c: Call) -> Tensor:
    """The p-norm over space."""
    x = c.tensor(0)
    order = float(c.attribute("p", 2))
    norm: Tensor = torch.linalg.vector_norm(x, order, _space(x), keepdim=True)
    return norm


def _space(x: Tensor) -> list[int]:
    return list(range(2, x.dim()))


def _window(c: Call, x: Tensor) -> Window:
    return window(c, c.attribute("kernel_shape"), tuple(x.shape[2:]))


def _function(c: Call, functions: dict[int, Any], w: Window) -> Any:
    if len(w.kernel) not in functions:
        c.fail(f"pools over {len(w.kernel)} spatial dimensions; one to three can be captured")
    return functions[len(w.kernel)]

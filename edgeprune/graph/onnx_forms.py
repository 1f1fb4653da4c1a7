"""Operators that the ONNX exporter does not know, computed by those that it does.

The exporter traces these functions in the operator's place, so that the ONNX nodes keep its name.
Each gives the operator's own result, to rounding.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.ops import argument, op_name

Shape = Sequence[int]


def onnx_form(node: Node) -> Any:
    """What computes a node for the exporter: a form of this file, else its own operator."""
    form = _FORMS.get(op_name(node))
    # Repeated as often as values say, nothing is known.
    unknown = op_name(node) == "repeat_interleave" and isinstance(argument(node, 1), Node)
    return node.target if form is None or unknown else form


def with_plain_arguments(node: Node, shapes: Mapping[Node, Shape]) -> None:
    """Give a node, in place, arguments that the exporter and the runtimes read as torch does.

    Args:
        node: One of a graph in which all sizes are numbers.
        shapes: Of the nodes that give one tensor, the node's own among them.
    """
    plain = _PLAIN_ARGUMENTS.get(op_name(node))
    if plain is not None and node in shapes and node.args[0] in shapes:
        plain(node, shapes[node.args[0]], shapes[node])  # type: ignore[index]
    elif op_name(node) == "cat":
        parts: Any = node.args[0]
        filled = [part for part in parts if 0 not in shapes.get(part, ())]
        node.args = (filled or parts, *node.args[1:])


def _without_negative_dims(node: Node, before: Shape, after: Shape) -> None:
    source, *dims = node.args
    flat = dims[0] if isinstance(dims[0], list | tuple) else dims
    plain: Any = [dim % len(before) for dim in flat]  # type: ignore[operator]
    node.args = (source, plain) if flat is dims[0] else (source, *plain)


def _as_reshape(node: Node, before: Shape, after: Shape) -> None:
    node.target = torch.ops.aten.reshape.default
    node.args, node.kwargs = (node.args[0], list(after)), {}


def _with_whole_shape(node: Node, before: Shape, after: Shape) -> None:
    node.args, node.kwargs = (node.args[0], list(after)), {}


def _with_window_inside(node: Node, before: Shape, after: Shape) -> None:
    """Average over no more than there is, which a pool that rounds its size up may be asked for."""
    window: Any = argument(node, 1, "kernel_size")
    padding: Any = argument(node, 3, "padding", (0,))
    if not any(padding):
        inside = [min(a, b) for a, b in zip(window, before[-len(window) :])]
        stride = argument(node, 2, "stride") or window
        node.args = (node.args[0], inside, stride, *node.args[3:])


_PLAIN_ARGUMENTS: dict[str, Callable[[Node, Shape, Shape], None]] = {
    "avg_pool2d": _with_window_inside,
    "expand": _with_whole_shape,
    "flatten": _as_reshape,
    "permute": _without_negative_dims,
    "transpose": _without_negative_dims,
    "unflatten": _as_reshape,
}


def _expm1(x: Tensor) -> Tensor:
    # Near zero the subtraction would cancel; there the series is exact to float32.
    series = x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6)))))
    return torch.where(x.abs() < 0.1, series, x.exp() - 1)


def _asinh(x: Tensor) -> Tensor:
    size = x.abs()
    return (size + (size * size + 1).sqrt()).log() * x.sign()


def _atanh(x: Tensor) -> Tensor:
    return ((1 + x) / (1 - x)).log() / 2


def _atan2(y: Tensor, x: Tensor) -> Tensor:
    """The angle of (x, y); zeros have no sign."""
    up = torch.where(y < 0, torch.full_like(y, -math.pi), torch.full_like(y, math.pi))
    angle = (y / torch.where(x == 0, torch.ones_like(x), x)).atan()
    angle = torch.where(x < 0, angle + up, angle)
    vertical = torch.where(y == 0, torch.zeros_like(y), up / 2)
    return torch.where(x == 0, vertical, angle)


def _histc(x: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """Counts of values in equal bins between two bounds; both zero is the data's own bounds."""
    flat = x.flatten()
    low: Any = flat.min() if min == max else min
    high: Any = flat.max() if min == max else max
    place = ((flat - low) * (bins / (high - low))).floor().clamp(max=bins - 1)
    # A value at the upper bound belongs to the last bin, one beyond it to none.
    place = torch.where(flat > high, torch.full_like(place, -1), place)
    numbers = torch.arange(bins, dtype=place.dtype)
    return (place.unsqueeze(-1) == numbers).to(x.dtype).sum(0)


def _grouped_mm(
    x: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    bias: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Rows of a matrix times the weight of the group that they lie in.

    Args:
        x: (rows, features), the rows of a group side by side.
        weight: (groups, features, outputs).
        offsets: (groups,), where each group's rows end.
    """
    assert offsets is not None and weight.dim() == 3, "only rows in groups have a form"
    # Which rows a group has is known only when it runs, and shapes must not depend on it: every
    # group multiplies all rows and keeps its own.
    row = torch.arange(x.shape[0]).unsqueeze(-1)
    start = F.pad(offsets[:-1], (1, 0))
    total = None
    for group in range(weight.shape[0]):
        own = (row >= start[group]) & (row < offsets[group])
        part = torch.where(own, x, torch.zeros_like(x)) @ weight[group]
        total = part if total is None else total + part
    assert total is not None
    return total if bias is None else total + bias


def _rms_norm(
    x: Tensor, shape: list[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    dims = tuple(range(-len(shape), 0))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    y = x * torch.rsqrt(x.square().mean(dims, keepdim=True) + eps)
    return y if weight is None else y * weight


def _logsumexp(x: Tensor, dims: list[int], keepdim: bool = False) -> Tensor:
    most = x.amax(dims, keepdim=True)
    most = torch.where(most.abs() == float("inf"), torch.zeros_like(most), most)
    total = (x - most).exp().sum(dims, keepdim=True).log() + most
    return total if keepdim else total.squeeze(dims)


def _scatter(x: Tensor, dim: int, index: Tensor, source: Tensor | float) -> Tensor:
    """Scatter of a number, or among truth values, which the exporter knows for tensors alone."""
    if not isinstance(source, Tensor):
        source = torch.full(index.shape, float(source))
    if x.dtype != torch.bool:
        return x.scatter(dim, index, source.to(x.dtype))
    return x.to(torch.int32).scatter(dim, index, source.to(torch.int32)).to(torch.bool)


def _repeat_interleave(
    x: Tensor, repeats: int, dim: int | None = None, output_size: int | None = None
) -> Tensor:
    """Every entry along a dimension so many times, side by side."""
    flat = x.flatten() if dim is None else x
    along = 0 if dim is None else dim
    order = [place for place in range(int(flat.shape[along])) for _ in range(repeats)]
    return flat.index_select(along, torch.tensor(order))


def _bitwise_and(x: Any, y: Any) -> Any:
    """Bits that both have, which the exporter knows among truth values alone."""
    value, truth = _by_dtype(x, y)
    return x & y if truth is None else value.remainder(2) * truth.to(value.dtype)


def _bitwise_or(x: Any, y: Any) -> Any:
    """Bits that either has, likewise."""
    value, truth = _by_dtype(x, y)
    return x | y if truth is None else value + (1 - value.remainder(2)) * truth.to(value.dtype)


def _by_dtype(x: Any, y: Any) -> tuple[Any, Tensor | None]:
    """An integer operand and the other, a truth value; nothing for that unless they are such."""
    x, y = (value if isinstance(value, Tensor) else torch.tensor(value) for value in (x, y))
    if x.dtype == y.dtype or torch.bool not in (x.dtype, y.dtype):
        return x, None
    return (y, x) if x.dtype == torch.bool else (x, y)


def _col2im(
    x: Tensor, size: Shape, kernel: Shape, dilation: Shape, padding: Shape, stride: Shape
) -> Tensor:
    """Windows laid over each other and added (fold): a transposed convolution by ones."""
    steps = list(zip(size, kernel, dilation, padding, stride, strict=True))
    counts = [(a + 2 * p - d * (k - 1) - 1) // s + 1 for a, k, d, p, s in steps]
    ends = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, (_, k, d, p, s) in zip(counts, steps)]
    area = math.prod(kernel)
    ones = torch.eye(area, dtype=x.dtype).reshape(area, 1, *kernel)
    y = F.conv_transpose2d(
        x.reshape(-1, area, *counts),
        ones,
        stride=list(stride),
        padding=list(padding),
        output_padding=[have - end for have, end in zip(size, ends)],
        dilation=list(dilation),
    )
    return y.reshape(*x.shape[:-2], x.shape[-2] // area, *size)


def _copy(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    return source.to(x.dtype).expand_as(x)


def _unfold(x: Tensor, dim: int, size: int, step: int) -> Tensor:
    """Windows along a dimension, as a new last one."""
    dim %= x.dim()
    count = (x.shape[dim] - size) // step + 1
    start = torch.arange(count).unsqueeze(-1) * step
    index = start + torch.arange(size)
    chosen = x.index_select(dim, index.flatten())
    windows = chosen.reshape(*x.shape[:dim], count, size, *x.shape[dim + 1 :])
    return windows.movedim(dim + 1, -1)


def _full_like(x: Tensor, value: Tensor | float, **options: Any) -> Tensor:
    """As large as another tensor, of one value that may have been computed."""
    if not isinstance(value, Tensor):
        return torch.full_like(x, value, dtype=options.get("dtype"))
    return value.to(options.get("dtype") or x.dtype).expand_as(x)


_FORMS: dict[str, Callable[..., Any]] = {
    "__and__": _bitwise_and,
    "__or__": _bitwise_or,
    "asinh": _asinh,
    "atan2": _atan2,
    "atanh": _atanh,
    "_grouped_mm": _grouped_mm,
    "grouped_mm_fallback": _grouped_mm,
    "fill": _full_like,
    "full_like": _full_like,
    "bitwise_and": _bitwise_and,
    "bitwise_or": _bitwise_or,
    "col2im": _col2im,
    "copy": _copy,
    "expm1": _expm1,
    "histc": _histc,
    "logsumexp": _logsumexp,
    "repeat_interleave": _repeat_interleave,
    "rms_norm": _rms_norm,
    "scatter": _scatter,
    "unfold": _unfold,
}

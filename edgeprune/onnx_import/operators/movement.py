"""Parts of a value, and values around it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeprune.onnx_import.host import Host
from edgeprune.onnx_import.operators.padding import pad_arguments
from edgeprune.onnx_import.registry import Call, operator

_FAR = 2**31 - 1


@operator("Slice", host=(1, 2, 3, 4))
def slice_(c: Call) -> Tensor:
    """Ranges along dimensions, also backwards."""
    x = c.tensor(0)
    starts, ends, axes, steps = slice_bounds(c, x.dim())
    for start, end, axis, step in zip(starts, ends, axes, steps):
        x = _sliced(x, axis % x.dim(), start, end, step)
    return x


def slice_bounds(c: Call, rank: int) -> tuple[list[Any], list[Any], list[int], list[int]]:
    """Starts, ends, axes and steps, which are attributes in old files."""
    if c.opset < 10:
        starts, ends = list(c.attribute("starts")), list(c.attribute("ends"))
        axes = list(c.attribute("axes", range(len(starts))))
        return starts, ends, axes, [1] * len(starts)
    starts, ends = c.numbers(1, "bounds"), c.numbers(2, "bounds")
    axes = c.numbers(3, "axes") if c.has(3) else list(range(len(starts)))
    steps = c.numbers(4, "steps") if c.has(4) else [1] * len(starts)
    return starts, ends, axes, steps


def _sliced(x: Tensor, axis: int, start: Any, end: Any, step: int) -> Tensor:
    lead = (slice(None),) * axis
    if step > 0:
        open_end = isinstance(end, int) and end >= _FAR
        whole = isinstance(start, int) and start == 0
        if whole and open_end and step == 1:
            return x
        return x[(*lead, slice(start, None if open_end else end, step))]
    places = range(x.shape[axis])[slice(start, None if end <= -_FAR else end, step)]
    return x.index_select(axis, torch.tensor(list(places), dtype=torch.int64))


@operator("Split", host=(1,))
def split(c: Call) -> tuple[Tensor, ...]:
    """Parts of given sizes, or as many as there are outputs."""
    x, axis = c.tensor(0), c.attribute("axis", 0)
    sizes = c.numbers(1, "sizes") if c.has(1) else c.attribute("split")
    if sizes is None:
        count = c.attribute("num_outputs", len(c.node.outputs))
        each = (x.shape[axis] + count - 1) // count
        return torch.split(x, each, axis)
    return torch.split(x, list(sizes), axis)


@operator("Pad", host=(1, 2, 3))
def pad(c: Call) -> Tensor:
    """By a number, by what lies at the edge, mirrored or around."""
    x = c.tensor(0)
    begin, end = _amounts(c, x.dim())
    mode = c.attribute("mode", "constant")
    if mode == "constant":
        value = c.number(2, "value") if c.has(2) else c.attribute("value", 0.0)
        return F.pad(x, _without_trailing_zeros(pad_arguments(begin, end)), value=value)
    if mode == "edge":
        return _by_index(c, x, begin, end, lambda place, size: min(max(place, 0), size - 1))
    if mode == "wrap":
        return _by_index(c, x, begin, end, lambda place, size: place % size)
    reflected = [d for d in range(x.dim()) if begin[d] or end[d]]
    if x.dim() in (3, 4, 5) and reflected and min(reflected) >= 2:
        return F.pad(x, pad_arguments(begin[2:], end[2:]), mode="reflect")
    return _by_index(c, x, begin, end, _mirrored)


def _amounts(c: Call, rank: int) -> tuple[list[Any], list[Any]]:
    """Amounts at both ends of every dimension."""
    pads = c.numbers(1, "amounts") if c.has(1) else list(c.attribute("pads"))
    axes = [a % rank for a in c.numbers(3, "axes")] if c.has(3) else list(range(rank))
    begin: list[Any] = [0] * rank
    end: list[Any] = [0] * rank
    for place, axis in enumerate(axes):
        begin[axis], end[axis] = pads[place], pads[place + len(axes)]
    return begin, end


def _without_trailing_zeros(pads: list[Any]) -> list[Any]:
    """Dimensions in front that are not padded need not be named."""
    while len(pads) > 2 and all(isinstance(n, int) and n == 0 for n in pads[-2:]):
        pads = pads[:-2]
    return pads


def _mirrored(place: int, size: int) -> int:
    if size == 1:
        return 0
    period = 2 * (size - 1)
    place = place % period
    return min(place, period - place)


def _by_index(c: Call, x: Tensor, begin: list[Any], end: list[Any], origin: Any) -> Tensor:
    """Padding whose entries are copies of others."""
    for dim in range(x.dim()):
        low, high, size = begin[dim], end[dim], x.shape[dim]
        if isinstance(low, int) and isinstance(high, int) and low == high == 0:
            continue
        if not all(isinstance(n, int) for n in (low, high, size)):
            c.fail("copies into padding of an open size; export the model with fixed sizes")
        places = [origin(place, size) for place in range(-low, size + high)]
        x = x.index_select(dim, torch.tensor(places, dtype=torch.int64))
    return x


@operator("CenterCropPad", host=(1,))
def centre_crop_pad(c: Call) -> Tensor:
    """Cut or padded on both sides to given sizes."""
    x = c.tensor(0)
    axes = c.attribute("axes", list(range(x.dim())))
    for axis, wanted in zip(axes, c.numbers(1, "sizes")):
        axis, size = axis % x.dim(), x.shape[axis]
        if wanted < size:
            x = x.narrow(axis, (size - wanted) // 2, wanted)
        elif wanted > size:
            low = (wanted - size) // 2
            ends = [(low, wanted - size - low) if d == axis else (0, 0) for d in range(x.dim())]
            x = F.pad(x, [n for pair in reversed(ends) for n in pair])
    return x


@operator("Trilu", host=(1,))
def triangle(c: Call) -> Tensor:
    """One triangle of the last two dimensions."""
    x = c.tensor(0)
    diagonal = int(c.number(1, "diagonal")) if c.has(1) else 0
    upper = c.attribute("upper", 1)
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)


@operator("ReverseSequence", host=(1,))
def reverse_sequence(c: Call) -> Tensor:
    """Only of sequences that are as long as the dimension."""
    x = c.tensor(0)
    time, lengths = c.attribute("time_axis", 0), c.value(1)
    if not isinstance(lengths, Host) or any(n != x.shape[time] for n in lengths.numbers()):
        c.fail("reverses sequences of several lengths; export the model for one length")
    return x.flip(time)

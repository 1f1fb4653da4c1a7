"""Operators that tell shapes, and those that make values of a shape."""

import torch
from torch import Tensor

from edgeprune.onnx_import.host import Host
from edgeprune.onnx_import.registry import Call, host_operator, operator
from edgeprune.onnx_import.types import torch_type

# A range or a fill up to this length is kept as numbers, for it may be part of a shape.
_MOST_NUMBERS = 64


@operator("Shape")
def shape(c: Call) -> Host:
    """All sizes, or those of some dimensions."""
    value = c.value(0)
    sizes = list(value.shape if isinstance(value, Tensor) else value.array.shape)
    return Host.of(sizes[slice(c.attribute("start", 0), c.attribute("end"))])


@operator("Size")
def size(c: Call) -> Host:
    """How many entries there are."""
    value = c.value(0)
    return Host.of(value.numel() if isinstance(value, Tensor) else int(value.array.size))


def _fill(c: Call) -> tuple[float | int | bool, torch.dtype]:
    value = c.attribute("value")
    return (0.0, torch.float32) if value is None else (value.numbers()[0], value.dtype)


@operator("ConstantOfShape", host=(0,))
def constant_of_shape(c: Call) -> Tensor:
    """One number everywhere."""
    value, dtype = _fill(c)
    number = int(value) if dtype == torch.bool else value  # what exporters can write again
    return torch.full(c.numbers(0, "shape"), number, dtype=dtype)


@host_operator("ConstantOfShape", symbolic=())
def small_constant(c: Call) -> Host | None:
    """The same, kept as numbers where it may be a shape."""
    sizes = c.numbers(0, "shape")
    value, dtype = _fill(c)
    if len(sizes) > 1 or (sizes and sizes[0] > _MOST_NUMBERS):
        return None
    return Host.of([value] * sizes[0] if sizes else value, dtype)


@operator("Range", host=(0, 1, 2))
def range_(c: Call) -> Tensor | Host:
    """Numbers from a start to a limit."""
    start, limit, step = (c.number(i, "bounds") for i in range(3))
    dtype = c.host(0, "bounds").dtype
    known = all(isinstance(x, int) for x in (start, limit, step))
    if known and len(range(start, limit, step)) <= _MOST_NUMBERS:
        return Host.of(list(range(start, limit, step)), dtype)
    return torch.arange(start, limit, step, dtype=dtype)


@operator("EyeLike")
def eye_like(c: Call) -> Tensor:
    """Ones on a diagonal, in the shape of another value."""
    x, number = c.tensor(0), c.attribute("dtype")
    dtype = x.dtype if number is None else torch_type(int(number))
    ones = torch.ones(x.shape, dtype=dtype)
    offset = c.attribute("k", 0)
    return torch.triu(torch.tril(ones, offset), offset)

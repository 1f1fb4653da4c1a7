"""Arithmetic on sizes and other known numbers, among which there may be symbols."""

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.onnx_import.host import Host, divide
from edgeprune.onnx_import.operators.movement import slice_bounds
from edgeprune.onnx_import.registry import Call, host_operator
from edgeprune.onnx_import.types import torch_type

Array = npt.NDArray[Any]


def _array(values: Any) -> Array:
    """An array of objects; NumPy gives a bare object for one of no dimensions."""
    if isinstance(values, np.ndarray):
        return values
    array = np.empty((), object)
    array[()] = values
    return array


def _objects(c: Call) -> list[Array]:
    return [c.host(i, "numbers").objects() for i in range(len(c.inputs))]


def _entrywise(name: str, function: Callable[[Any, Any], Any], dtype: Any = None) -> None:
    apply = np.frompyfunc(function, 2, 1)

    @host_operator(name)
    def run(c: Call) -> Host:
        made = reduce(lambda a, b: _array(apply(a, b)), _objects(c))
        return Host(made, dtype or c.host(0, "numbers").dtype)


def _unary(name: str, function: Callable[[Any], Any]) -> None:
    apply = np.frompyfunc(function, 1, 1)

    @host_operator(name)
    def run(c: Call) -> Host:
        value = c.host(0, "numbers")
        return Host(_array(apply(value.objects())), value.dtype)


_entrywise("Add", lambda a, b: a + b)
_entrywise("Sub", lambda a, b: a - b)
_entrywise("Mul", lambda a, b: a * b)
_entrywise("Div", divide)
_entrywise("Mod", lambda a, b: math.fmod(a, b) if isinstance(a, float) else a % b)
_entrywise("Max", torch.sym_max)
_entrywise("Min", torch.sym_min)
_entrywise("Equal", lambda a, b: bool(a == b), torch.bool)
_entrywise("Less", lambda a, b: bool(a < b), torch.bool)
_entrywise("LessOrEqual", lambda a, b: bool(a <= b), torch.bool)
_entrywise("Greater", lambda a, b: bool(a > b), torch.bool)
_entrywise("GreaterOrEqual", lambda a, b: bool(a >= b), torch.bool)
_entrywise("And", lambda a, b: bool(a and b), torch.bool)
_entrywise("Or", lambda a, b: bool(a or b), torch.bool)
_unary("Neg", lambda x: -x)
_unary("Abs", abs)
_unary("Not", lambda x: not x)
_unary("Identity", lambda x: x)
_unary("Sqrt", lambda x: x**0.5)
_unary("Floor", lambda x: 1.0 * math.floor(x))
_unary("Ceil", lambda x: 1.0 * math.ceil(x))


@host_operator("Cast")
def cast(c: Call) -> Host:
    """To whole numbers, floats or truth values."""
    value, dtype = c.host(0, "numbers"), torch_type(int(c.attribute("to")))
    if dtype is None:
        c.fail("casts to a type that cannot be pruned; give the float32 model")
    if dtype == torch.bool:
        convert: Callable[[Any], Any] = bool
    else:
        convert = torch.sym_float if dtype.is_floating_point else torch.sym_int
    made = np.frompyfunc(convert, 1, 1)(value.objects())
    return Host(_array(made), dtype)


@host_operator("Where")
def where(c: Call) -> Host:
    """One or the other."""
    choose = np.frompyfunc(lambda condition, a, b: a if condition else b, 3, 1)
    return Host(_array(choose(*_objects(c))), c.host(1, "numbers").dtype)


@host_operator("Concat")
def concat(c: Call) -> Host:
    """Along a dimension."""
    made = np.concatenate(_objects(c), axis=c.attribute("axis"))
    return Host(made, c.host(0, "numbers").dtype)


def _moved(c: Call, array: Any) -> Host:
    return Host(_array(array), c.host(0, "numbers").dtype)


@host_operator("Gather", symbolic=(0,))
def gather(c: Call) -> Host:
    """Some of the numbers."""
    values, index = c.host(0, "numbers").objects(), c.host(1, "indices").known()
    if values.ndim == 1 and index.ndim == 0:
        return _moved(c, values[int(index)])
    return _moved(c, np.take(values, index, axis=c.attribute("axis", 0)))


@host_operator("Slice", symbolic=(0,))
def slice_(c: Call) -> Host:
    """A range of the numbers."""
    values = c.host(0, "numbers").objects()
    starts, ends, axes, steps = slice_bounds(c, values.ndim)
    places = [slice(None)] * values.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps):
        places[axis] = slice(start, None if step < 0 and end < -(2**31) else end, step)
    return _moved(c, values[tuple(places)])


@host_operator("Squeeze", symbolic=(0,))
def squeeze(c: Call) -> Host:
    """Without dimensions of size 1."""
    axes = c.numbers(1, "axes") if c.has(1) else c.attribute("axes")
    values = c.host(0, "numbers").objects()
    shape = values.squeeze().shape
    if axes is not None:
        gone = {axis % values.ndim for axis in axes}
        shape = tuple(n for d, n in enumerate(values.shape) if d not in gone)
    return _moved(c, values.reshape(shape))


@host_operator("Unsqueeze", symbolic=(0,))
def unsqueeze(c: Call) -> Host:
    """With dimensions of size 1."""
    axes = c.numbers(1, "axes") if c.has(1) else c.attribute("axes")
    return _moved(c, np.expand_dims(c.host(0, "numbers").objects(), tuple(axes)))


@host_operator("Reshape", symbolic=(0,))
def reshape(c: Call) -> Host:
    """In another shape."""
    values, wanted = c.host(0, "numbers").objects(), c.numbers(1, "shape")
    shape = [values.shape[d] if n == 0 and values.ndim > d else n for d, n in enumerate(wanted)]
    return _moved(c, values.reshape(shape))


@host_operator("Expand", symbolic=(0,))
def expand(c: Call) -> Host:
    """Repeated to a shape."""
    values = c.host(0, "numbers").objects()
    shape = np.broadcast_shapes(values.shape, tuple(c.numbers(1, "shape")))
    return _moved(c, np.broadcast_to(values, shape))


@host_operator("Tile", symbolic=(0,))
def tile(c: Call) -> Host:
    """Copies."""
    return _moved(c, np.tile(c.host(0, "numbers").objects(), c.numbers(1, "number of copies")))


@host_operator("Transpose")
def transpose(c: Call) -> Host:
    """Dimensions in another order."""
    return _moved(c, np.transpose(c.host(0, "numbers").objects(), c.attribute("perm")))


@host_operator("Split", symbolic=(0,))
def split(c: Call) -> tuple[Host, ...]:
    """Parts."""
    values, axis = c.host(0, "numbers").objects(), c.attribute("axis", 0)
    sizes = c.numbers(1, "sizes") if c.has(1) else c.attribute("split")
    if sizes is None:
        parts = np.array_split(values, len(c.node.outputs), axis)
    else:
        parts = np.split(values, np.cumsum(sizes)[:-1].tolist(), axis)
    return tuple(_moved(c, part) for part in parts)


def _reduction(name: str, function: Callable[[Any, Any], Any]) -> None:
    apply = np.frompyfunc(function, 2, 1)

    @host_operator(name, symbolic=(0,))
    def run(c: Call) -> Host:
        values = c.host(0, "numbers").objects()
        axes = c.numbers(1, "axes") if c.has(1) else c.attribute("axes")
        if not axes and c.attribute("noop_with_empty_axes", 0):
            return _moved(c, values)
        over = tuple(axes) if axes else tuple(range(values.ndim))
        keep = bool(c.attribute("keepdims", 1))
        for axis in sorted((a % max(values.ndim, 1) for a in over), reverse=True):
            values = _array(apply.reduce(values, axis=axis, keepdims=keep))
        return _moved(c, values)


_reduction("ReduceProd", lambda a, b: a * b)
_reduction("ReduceSum", lambda a, b: a + b)
_reduction("ReduceMax", torch.sym_max)
_reduction("ReduceMin", torch.sym_min)

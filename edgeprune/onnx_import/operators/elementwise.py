"""Operators of two and more operands that work entry by entry, under broadcasting."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from edgeprune.onnx_import.host import Host
from edgeprune.onnx_import.registry import Call, operator
from edgeprune.onnx_import.types import as_type

Binary = Callable[[Any, Any], Any]


def operands(c: Call, first: int = 0, second: int = 1) -> tuple[Any, Any]:
    """Two operands, a single number as such where the other is a tensor of at least its rank."""
    a, b = c.value(first), c.value(second)
    if isinstance(a, Tensor) and isinstance(b, Host):
        return a, _alike(c.operand(second, a.dim()), a)
    if isinstance(a, Host) and isinstance(b, Tensor):
        return _alike(c.operand(first, b.dim()), b), b
    return c.tensor(first), c.tensor(second)


def _alike(value: Any, like: Tensor) -> Any:
    return as_type(value, like.dtype) if isinstance(value, Tensor) else value


def _tensors(c: Call) -> tuple[Tensor, Tensor]:
    """Both operands, which are whole or truth values, as tensors for functions of tensors."""
    a, b = operands(c)
    if not isinstance(a, Tensor):
        a = torch.full((), int(a), dtype=b.dtype)
    if not isinstance(b, Tensor):
        b = torch.full((), int(b), dtype=a.dtype)
    return a, b


def _binary(name: str, function: Binary) -> None:
    operator(name, entrywise=True)(lambda c: function(*operands(c)))


def _binary_of_tensors(name: str, function: Binary) -> None:
    operator(name, entrywise=True)(lambda c: function(*_tensors(c)))


def _divide(a: Any, b: Any) -> Any:
    """Of whole numbers the quotient is cut towards zero."""
    floating = any(isinstance(x, Tensor) and x.is_floating_point() for x in (a, b))
    return a / b if floating else torch.div(a, b, rounding_mode="trunc")


_binary("Add", lambda a, b: a + b)
_binary("Sub", lambda a, b: a - b)
_binary("Mul", lambda a, b: a * b)
_binary("Div", _divide)
_binary("Less", lambda a, b: a < b)
_binary("LessOrEqual", lambda a, b: a <= b)
_binary("Greater", lambda a, b: a > b)
_binary("GreaterOrEqual", lambda a, b: a >= b)
_binary("Equal", lambda a, b: a == b)
_binary_of_tensors("And", torch.logical_and)
_binary_of_tensors("Or", torch.logical_or)
_binary_of_tensors("Xor", torch.logical_xor)
_binary_of_tensors("BitwiseAnd", torch.bitwise_and)
_binary_of_tensors("BitwiseOr", torch.bitwise_or)
_binary_of_tensors("BitwiseXor", torch.bitwise_xor)


@operator("Pow", entrywise=True)
def power(c: Call) -> Tensor:
    """The result has the type of the base."""
    base = c.tensor(0)
    exponent = c.operand(1, base.dim())
    result: Tensor = torch.pow(base, exponent)
    return as_type(result, base.dtype)


@operator("Mod", entrywise=True)
def modulo(c: Call) -> Tensor:
    """With the sign of the divisor, or of the dividend where ``fmod`` asks for it."""
    function = torch.fmod if c.attribute("fmod", 0) else torch.remainder
    return function(*operands(c))


@operator("BitShift", entrywise=True)
def shift(c: Call) -> Tensor:
    """Left or right by a number of bits."""
    a, b = _tensors(c)
    left = c.attribute("direction") == "LEFT"
    return a << b if left else a >> b


def _of_all(c: Call, function: Binary) -> Tensor:
    values = [c.tensor(i) for i in range(len(c.inputs))]
    result: Tensor = reduce(function, values)
    return result


@operator("Max", entrywise=True)
def maximum(c: Call) -> Tensor:
    """The largest of the operands."""
    return _of_all(c, torch.maximum)


@operator("Min", entrywise=True)
def minimum(c: Call) -> Tensor:
    """The smallest of the operands."""
    return _of_all(c, torch.minimum)


@operator("Sum", entrywise=True)
def total(c: Call) -> Tensor:
    """The sum of the operands."""
    return _of_all(c, lambda a, b: a + b)


@operator("Mean", entrywise=True)
def mean(c: Call) -> Tensor:
    """The mean of the operands."""
    return _of_all(c, lambda a, b: a + b) / len(c.inputs)


@operator("Where", entrywise=True)
def where(c: Call) -> Tensor:
    """One or the other operand, as a condition says."""
    a, b = c.value(1), c.value(2)
    if isinstance(a, Host) and isinstance(b, Host):
        first, second = c.tensor(1), c.tensor(2)
    else:
        first, second = operands(c, 1, 2)
    return torch.where(c.tensor(0), first, second)

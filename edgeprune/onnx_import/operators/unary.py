"""Operators of one operand that work entry by entry."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from edgeprune.onnx_import.host import Host
from edgeprune.onnx_import.registry import Call, operator
from edgeprune.onnx_import.types import as_type, torch_type

_DIRECT: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}


def _register(name: str, function: Callable[[Tensor], Tensor]) -> None:
    operator(name)(lambda c: function(c.tensor(0)))


for _name, _function in _DIRECT.items():
    _register(_name, _function)


@operator("Identity")
def identity(c: Call) -> Any:
    """The operand."""
    return c.value(0)


@operator("Dropout", host=(1, 2))
def dropout(c: Call) -> Any:
    """Nothing at inference; the mask that goes with it is all true."""
    if c.has(2) and bool(c.number(2, "mode")):
        c.fail("drops out as in training; export the model in eval mode")
    x = c.tensor(0)
    return (x, torch.ones_like(x, dtype=torch.bool)) if len(c.node.outputs) > 1 else x


@operator("Cast")
def cast(c: Call) -> Tensor:
    """Floating types are all float32."""
    dtype = torch_type(int(c.attribute("to")))
    if dtype is None:
        c.fail("casts to a type that cannot be pruned; give the float32 model")
    return as_type(c.tensor(0), dtype)


@operator("CastLike")
def cast_like(c: Call) -> Tensor:
    """To the type of the second operand."""
    other = c.value(1)
    return as_type(c.tensor(0), other.dtype)


@operator("Clip", host=(1, 2))
def clip(c: Call) -> Tensor:
    """Between bounds, which are attributes in old files."""
    x = c.tensor(0)
    low = _bound(c, 1, "min", x)
    high = _bound(c, 2, "max", x)
    if low is None and high is None:
        return x
    return torch.clamp(x, low, high)


def _bound(c: Call, index: int, name: str, x: Tensor) -> Any:
    if not c.has(index):
        return c.attribute(name)
    value = c.value(index)
    if isinstance(value, Host):
        return value.numbers()[0]
    return as_type(value, x.dtype)


@operator("IsInf")
def is_infinite(c: Call) -> Tensor:
    """Of both signs, or of one."""
    x = c.tensor(0)
    positive, negative = c.attribute("detect_positive", 1), c.attribute("detect_negative", 1)
    if positive and negative:
        return torch.isinf(x)
    if positive:
        return torch.isposinf(x)
    return torch.isneginf(x) if negative else torch.zeros_like(x, dtype=torch.bool)

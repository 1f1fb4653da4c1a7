"""What a program may call: operators of ATen, and arithmetic on sizes."""

import math
import operator
import re
from collections.abc import Callable
from typing import Any

import torch

from edgeprune.errors import InputError

_ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")
_ON_SIZES = {
    **{f"_operator.{name}": getattr(operator, name) for name in (
        "add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pow", "eq", "ne", "lt", "le",
        "gt", "ge", "and_", "or_", "not_", "getitem",
    )},
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc")},
    **{f"torch.{name}": getattr(torch, name) for name in (
        "sym_max", "sym_min", "sym_float", "sym_int", "sym_not", "sym_ite", "sym_sum",
    )},
}  # fmt: skip
# Operators around a part of the graph that change nothing at inference, and how many arguments
# stand before that part.
INLINED = {
    "torch.ops.higher_order.wrap_with_set_grad_enabled": 1,
    "torch.ops.higher_order.wrap_with_autocast": 4,
}


def find_target(name: str) -> Callable[..., Any]:
    """The function of that name.

    Raises:
        InputError: It is none that a program needs to compute.
    """
    if name in _ON_SIZES:
        found: Callable[..., Any] = _ON_SIZES[name]
        return found
    match = _ATEN.fullmatch(name)
    packet = getattr(torch.ops.aten, match[1], None) if match is not None else None
    overload = getattr(packet, match[2], None) if match is not None else None
    if not isinstance(overload, torch._ops.OpOverload) or _touches_files(overload):
        raise InputError(
            f"the program calls '{name[:120]}', which is no operator of ATen; export it without"
        )
    return overload


def _touches_files(overload: torch._ops.OpOverload) -> bool:
    """Whether an operator takes the name of a file."""
    return any("file" in argument.name for argument in overload._schema.arguments)

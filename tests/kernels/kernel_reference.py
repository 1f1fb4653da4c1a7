"""What a product has to be, by NumPy and in double precision."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def block_sparse(
    rng: np.random.Generator, outputs: int, inputs: int, block: tuple[int, int], sparsity: float
) -> Array:
    """A random weight with that share of its blocks zero."""
    rows, depth = block
    alive = rng.random((outputs // rows, -(-inputs // depth))) >= sparsity
    mask = np.repeat(np.repeat(alive, rows, 0), depth, 1)[:, :inputs]
    return (rng.standard_normal((outputs, inputs)) * mask).astype(np.float32)


def rounded_to_bfloat16(values: Array) -> Array:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)


def rounded_weight(weight: Array) -> Array:
    """To 127 steps of each output's largest weight."""
    scale = np.abs(weight).max(axis=1) / 127
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.rint(weight / scale[:, None]).astype(np.float64) * scale[:, None]


def rounded_rows(x: Array) -> Array:
    """To 127 steps of each row's largest value, as dynamic scales do it."""
    scale = np.abs(x).max(axis=1) / np.float32(127)
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    inverse = np.float32(1) / scale
    return np.clip(np.rint(x * inverse[:, None]), -128, 127).astype(np.float64) * scale[:, None]


def product(x: Array, weight: Array, precision: str) -> Array:
    """``x @ weight.T`` with both rounded to ``precision`` and summed in double precision."""
    if precision == "bf16":
        x, weight = rounded_to_bfloat16(x), rounded_to_bfloat16(weight)
    elif precision == "int8":
        x, weight = rounded_rows(x), rounded_weight(weight)
    return x.astype(np.float64) @ weight.T.astype(np.float64)

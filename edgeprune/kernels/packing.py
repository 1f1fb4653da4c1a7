"""Dense weights to the packed form of the kernels, whose layout ``format.hpp`` tells.

Packing is NumPy and happens once; what it makes is the storage on disk as well.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeprune.errors import InputError

Precision = Literal["f32", "bf16", "int8"]
Array = npt.NDArray[Any]

_MAGIC = b"EPSPARSE"
_VERSION = 1
_HEADER = struct.Struct("<8s7I4xQ12x")  # and a checksum of everything else
_CRC = struct.Struct("<I")
_ALIGNMENT = 64
_PADDING_ENTRIES = 8
PRECISIONS: tuple[Precision, ...] = ("f32", "bf16", "int8")
# What follows the magic and the version.
HEADER_FIELDS = ("precision", "rows", "depth", "outputs", "inputs", "entries")
# Blocks by precision: outputs by adjacent inputs.
BLOCKS: dict[Precision, tuple[tuple[int, int], ...]] = {
    "f32": ((4, 1), (1, 1), (16, 1), (32, 1)),
    "bf16": ((4, 1), (1, 1), (16, 1), (32, 1)),
    "int8": ((4, 1), (1, 1), (16, 4)),
}
_LARGEST = 127
_MOST_INT8_INPUTS = 1 << 16
_FLOAT32 = float(np.finfo(np.float32).max)
# The largest float that rounds to a bfloat16.
_MOST: dict[Precision, float] = {"f32": _FLOAT32, "bf16": 3.3895e38, "int8": _FLOAT32}
_MINUS_ZERO = 0x8000  # in bfloat16; a block of it is as empty as one of zeros


@dataclass(frozen=True)
class Quantised:
    """A weight as the kernels will read it.

    Attributes:
        values: float32, bfloat16 as uint16, or int8; shape (outputs, inputs).
        scale: int8 only: of each output.
    """

    values: Array
    scale: npt.NDArray[np.float32] | None = None

    def dense(self) -> npt.NDArray[np.float32]:
        """The weight in float32."""
        if self.scale is not None:
            return self.values.astype(np.float32) * self.scale[:, None]
        if self.values.dtype == np.uint16:
            return (self.values.astype(np.uint32) << 16).view(np.float32)
        return self.values


def quantise(weight: Array, precision: Precision, scale: Array | None = None) -> Quantised:
    """Round a float32 weight to a precision; int8 symmetrically with a scale for each output.

    Raises:
        InputError: A scale was given that does not fit, or without int8.
    """
    dense = np.ascontiguousarray(weight, np.float32)
    if scale is not None and (precision != "int8" or scale.shape != dense.shape[:1]):
        raise InputError(
            f"a scale of shape {scale.shape} does not fit a weight of {len(dense)} outputs in "
            f"{precision}; int8 has one scale for each output"
        )
    if precision == "f32":
        return Quantised(dense)
    if precision == "bf16":
        bits = dense.view(np.uint32).astype(np.uint64)
        rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
        return Quantised(np.where(rounded == _MINUS_ZERO, 0, rounded).astype(np.uint16))
    if scale is None:
        largest = np.abs(dense).max(axis=1)
        scale = np.where(largest > 0, largest / _LARGEST, 1)
    steps = scale.astype(np.float32)
    if not (np.isfinite(steps) & (steps > 0)).all():
        raise InputError("a scale of a weight is not above 0")
    values = np.clip(np.rint(dense / steps[:, None]), -_LARGEST, _LARGEST)
    return Quantised(values.astype(np.int8), steps)


def pack_bytes(
    weight: Array, block: tuple[int, int], precision: Precision, scale: Array | None = None
) -> bytes:
    """The packed form of a weight of shape (outputs, inputs); blocks of zeros are left out.

    Raises:
        InputError: The weight is not a finite matrix, there is no kernel for the block, or the
            block does not divide the outputs.
    """
    dense = np.asarray(weight)
    if dense.ndim != 2 or 0 in dense.shape or not np.issubdtype(dense.dtype, np.floating):
        raise InputError(
            f"a weight to pack is a float matrix (outputs, inputs), not {dense.dtype} of shape "
            f"{dense.shape}"
        )
    if block not in BLOCKS.get(precision, ()):
        known = ", ".join(map(block_name, BLOCKS.get(precision, ()))) or "nothing"
        raise InputError(f"no kernel for blocks of {block_name(block)} in {precision}: {known}")
    if not (np.abs(dense) <= _MOST[precision]).all():
        raise InputError(
            f"a weight to pack holds values that are not finite, or too large for {precision}"
        )
    rows, depth = block
    outputs, inputs = dense.shape
    if precision == "int8" and inputs > _MOST_INT8_INPUTS:
        raise InputError(
            f"{inputs} inputs are too many for int8, whose sums have 32 bits: at most "
            f"{_MOST_INT8_INPUTS}; take bf16"
        )
    if outputs % rows:
        raise InputError(
            f"{outputs} outputs are no multiple of a block's {rows}; take a smaller block"
        )
    quantised = quantise(dense, precision, scale)
    begin, index, values = _entries(quantised.values, rows, depth, _merged(precision, block))
    sections = [begin, index, values]
    if quantised.scale is not None:
        sections += [quantised.scale, quantised.values.sum(axis=1, dtype=np.int32)]
    body = b"".join(_aligned(section) for section in sections)
    header = _HEADER.pack(
        _MAGIC,
        _VERSION,
        PRECISIONS.index(precision),
        rows,
        depth,
        outputs,
        inputs,
        int(begin[-1]),
        _HEADER.size + _CRC.size + len(body),
    )
    return header + _CRC.pack(zlib.crc32(body, zlib.crc32(header))) + body


def block_name(block: tuple[int, int]) -> str:
    """As people write it: ``4x1`` is four outputs by one input."""
    return f"{block[0]}x{block[1]}"


def entry_weights(precision: Precision, block: tuple[int, int]) -> int:
    """Weights that one step of a kernel takes, filled up with zeros where a group ends."""
    return block[0] * block[1] * _merged(precision, block)


def _merged(precision: Precision, block: tuple[int, int]) -> int:
    """Blocks that one step of a kernel takes: as many as fill a word of 32 bits."""
    if block[0] >= 16:
        return 1
    return {"f32": 1, "bf16": 2, "int8": 4}[precision]


def _entries(values: Array, rows: int, depth: int, merged: int) -> tuple[Array, Array, Array]:
    """First entry of each group, indices and values, with the padding that kernels prefetch.

    An entry holds ``merged`` blocks of its group, each output's side by side; a group whose blocks
    do not fill its last entry reads the first input for nothing.
    """
    values = np.pad(values, ((0, 0), (0, -values.shape[1] % depth)))
    outputs, inputs = values.shape
    groups = outputs // rows
    blocks = values.reshape(groups, rows, inputs // depth, depth).transpose(0, 2, 1, 3)
    alive = blocks.any(axis=(2, 3))
    counts = alive.sum(axis=1)
    filled = -(-counts // merged) * merged
    begin = np.concatenate([[0], np.cumsum(filled // merged)]).astype(np.uint32)

    group, block = np.nonzero(alive)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    place = (begin[:-1].astype(np.int64) * merged)[group] + np.arange(len(group)) - starts[group]
    total = int(begin[-1]) * merged
    index = np.zeros(total + _PADDING_ENTRIES * merged, np.uint32)
    index[place] = block * depth
    packed = np.zeros((total + _PADDING_ENTRIES * merged, rows, depth), values.dtype)
    packed[place] = blocks[group, block]
    by_entry = packed.reshape(-1, merged, rows, depth).transpose(0, 2, 1, 3)
    return begin, index, by_entry


def _aligned(section: Array) -> bytes:
    data = np.ascontiguousarray(section).tobytes()
    return data + bytes(-len(data) % _ALIGNMENT)

"""How a layer's weights are stored and multiplied: what stands beside its size in a plan."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from edgeprune.errors import InputError

Precision = Literal["default", "f32", "bf16", "int8"]
Block = tuple[int, int]

# What a block is cut down to where it does not divide the outputs that a plan leaves.
_SMALLER: tuple[Block, ...] = ((4, 1), (1, 1))
_SPARSE = re.compile(r"(f32|bf16|int8)-([1-9]\d*)x([1-9]\d*)-(\d{1,2}(?:\.\d+)?)")


@dataclass(frozen=True, order=True)
class Format:
    """One way to store and multiply a layer's weight.

    Attributes:
        precision: Of the product; ``default`` leaves it to the runtime.
        block: Outputs by adjacent inputs of what is zero together; None for a dense weight.
        sparsity: Share of the blocks that are zero.
    """

    precision: Precision = "default"
    block: Block | None = None
    sparsity: float = 0.0

    @property
    def sparse(self) -> bool:
        """Whether zeros are left out, which needs kernels of our own."""
        return self.block is not None

    @property
    def family(self) -> str:
        """The name without the sparsity: formats of one family run the same kernel."""
        if self.block is None:
            return "dense" if self.precision == "default" else self.precision
        return f"{self.precision}-{self.block[0]}x{self.block[1]}"

    def fitted(self, outputs: int) -> "Format":
        """This format, with the largest part of its block that divides a number of outputs."""
        if self.block is None or outputs % self.block[0] == 0:
            return self
        smaller = next(block for block in _SMALLER if outputs % block[0] == 0)
        return replace(self, block=smaller)

    def __str__(self) -> str:
        return f"{self.family}-{100 * self.sparsity:g}" if self.sparse else self.family


DENSE = Format()
DENSE_INT8 = Format("int8")

# Of layers by the name of their graph node; layers left out are dense.
Formats = Mapping[str, Format]
ALL_DENSE: Formats = MappingProxyType({})


def parse_format(name: str) -> Format:
    """The format of a name such as ``dense``, ``int8`` or ``int8-16x4-80`` (80% zeros).

    Raises:
        InputError: It is no such name.
    """
    for format_ in (DENSE, DENSE_INT8):
        if name == str(format_):
            return format_
    found = _SPARSE.fullmatch(name)
    if found is None:
        raise InputError(
            f"there is no format '{name}'; use dense, int8, or a precision, a block and a share "
            "of zeros such as int8-16x4-80"
        )
    precision, rows, depth, percent = found.groups()
    return Format(precision, (int(rows), int(depth)), float(percent) / 100)  # type: ignore[arg-type]

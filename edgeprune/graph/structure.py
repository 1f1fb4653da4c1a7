"""What can be removed from a network: structures, their units, and where each unit lives."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

Role = Literal["output", "input", "vector"]


@dataclass(frozen=True, eq=False)
class Slot:
    """One dimension of one parameter or buffer on which a structure has positions.

    Attributes:
        tensor: Qualified name of the parameter or buffer in the captured module.
        dim: The dimension of that tensor.
        unit: int32 of shape ``(size of dim,)``: the unit each position belongs to, -1 for
            positions that are not part of this structure.
        role: ``output`` for a weight dimension that produces the unit, ``input`` for one that
            consumes it, ``vector`` for what goes along (bias, normalisation, plain data).
        layer: Name of the graph node that computes with the tensor.
    """

    tensor: str
    dim: int
    unit: npt.NDArray[np.int32]
    role: Role
    layer: str


@dataclass(frozen=True, eq=False)
class Structure:
    """A family of interchangeable units, each removed as a whole.

    Attributes:
        name: Stable and readable, such as ``encoder.layer.0.attention:heads``.
        kind: ``heads``, ``neurons``, ``channels``, ``width`` (a residual stream), ``experts``, ...
        units: How many units there are.
        slots: Everything that shrinks when a unit goes.
        removable: Whether no unit at all may stay, which takes the whole block out.
        minimum: How many experts must stay, which is how many are chosen; else 0.
    """

    name: str
    kind: str
    units: int
    slots: tuple[Slot, ...]
    removable: bool
    minimum: int = 0

    @property
    def least(self) -> int:
        """How many units must stay."""
        return max(self.minimum, 0 if self.removable else 1)

    def inputs(self) -> tuple[Slot, ...]:
        """The slots through which the units are consumed."""
        return tuple(slot for slot in self.slots if slot.role == "input")

    def router(self) -> Slot | None:
        """Where the logits of experts come from; None of other units.

        A removed expert counts as one whose logit is minus infinity: to set the router's row to
        zero is not the same.
        """
        return self.outputs()[0] if self.kind == "experts" else None

    def outputs(self) -> tuple[Slot, ...]:
        """The slots that produce the units."""
        return tuple(slot for slot in self.slots if slot.role == "output")


@dataclass(frozen=True)
class Frozen:
    """Positions along a weight's dimension that cannot be pruned, and the operator that says so."""

    tensor: str
    dim: int
    positions: int
    operator: str
    node: str
    source: str
    reason: str

    @property
    def cause(self) -> tuple[str, str, str]:
        """Operator, source line and reason, which other dimensions may have in common.

        There is no operator where the network's ends, a request or the like are the cause.
        """
        reason = self.reason.partition(": ")[2]
        if self.operator in ("", "output"):
            return "", "", reason
        return self.operator, self.source or self.node, reason

    def __str__(self) -> str:
        operator, place, _ = self.cause
        return f"{self.reason} ({operator} at {place})" if operator else self.reason


@dataclass(frozen=True)
class SymbolicDim:
    """The size of one tensor dimension as a function of how many units stay.

    ``size = (fixed + sum(per_unit[s] * levels[s])) * times``, which holds because the units of
    one structure are interchangeable. Most dimensions have no ``times``: only where heads lie
    along it that may go and be narrowed, the size is that of one head times their number.
    """

    fixed: int
    per_unit: tuple[tuple[str, int], ...] = ()
    times: "tuple[SymbolicDim, ...]" = ()

    def at(self, levels: "dict[str, int]") -> int:
        """The size when ``levels[name]`` units of each structure stay."""
        return math.prod(
            factor.fixed + sum(count * levels[name] for name, count in factor.per_unit)
            for factor in self.factors()
        )

    def factors(self) -> "tuple[SymbolicDim, ...]":
        """Sums over levels whose product the size is."""
        return (replace(self, times=()), *self.times)

    def names(self) -> tuple[str, ...]:
        """The structures that decide the size, each once."""
        return tuple(dict.fromkeys(name for f in self.factors() for name, _ in f.per_unit))

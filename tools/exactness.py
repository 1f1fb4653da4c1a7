"""Whether a pruned network is the user's own module with the removed weights set to zero.

Nothing of the rewriter is used to judge it: the masked module runs as its author wrote it, at two
inputs, twice on each (a graph that writes into its own constants is right only once).
"""

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from masked_reference import (
    flat,
    other_inputs,
    plain_copy,
    run_masked,
    worst_difference,
    zero_removed,
)
from torch import Tensor, nn

TOLERANCE = 1e-4

Keep = Mapping[str, Sequence[int]]


_TOLERANCE_64 = 1e-7
# A larger difference is no rounding, whatever the network.
_MAYBE_ROUNDING = 1e-2


@dataclass(frozen=True)
class Difference:
    """How far a pruned network is from the masked module, as a share of the output's scale.

    Attributes:
        plain: From the module as it is.
        survivors: From the module whose normalisations take their statistics over what is left.
        reaction: How much the pruned output changes from one input to the other.
        pruned: The pruned network.
        in_double: The first two in float64, where float32 leaves it open whether they are
            rounding; None where it does not, or the network cannot run so.
    """

    plain: float
    survivors: float
    reaction: float
    pruned: nn.Module
    in_double: tuple[float, float] | None = None

    @property
    def outcome(self) -> str:
        """``exact``, ``exact-but-norm`` or ``wrong``."""
        in_double = self.in_double or (float("inf"), float("inf"))
        if self.plain <= TOLERANCE or in_double[0] <= _TOLERANCE_64:
            return "exact"
        norm = self.survivors <= TOLERANCE or in_double[1] <= _TOLERANCE_64
        return "exact-but-norm" if norm else "wrong"

    @property
    def accepted(self) -> float:
        """The difference that the outcome rests on, in float32."""
        return self.plain if self.outcome == "exact" else self.survivors


def half_of_each(structures: Mapping[str, Any], rng: random.Random) -> dict[str, list[int]]:
    """Random units that stay: half of every structure."""
    return {name: _sample(s.units, 0.5, rng) for name, s in structures.items()}


def random_share_of_each(structures: Mapping[str, Any], rng: random.Random) -> dict[str, list[int]]:
    """Random units that stay: another share of every structure."""
    return {name: _sample(s.units, rng.random(), rng) for name, s in structures.items()}


def _sample(units: int, gone: float, rng: random.Random) -> list[int]:
    count = min(units, max(1, round(units * (1 - gone))))
    return sorted(rng.sample(range(units), count))


def difference(
    model: nn.Module, inputs: Sequence[Tensor], network: Any, keep: Keep, seed: int = 0
) -> Difference:
    """Prune ``network`` and compare it with ``model``, masked."""
    pruned = network.shrink(keep)
    masked = plain_copy(model)
    zero_removed(masked, network.structures, keep)
    return compare(pruned, masked, inputs, seed)


def compare(
    pruned: nn.Module, masked: nn.Module, inputs: Sequence[Tensor], seed: int = 0
) -> Difference:
    """Both at two inputs, the pruned one twice on each."""
    generator = torch.Generator().manual_seed(seed)
    tries = (tuple(inputs), other_inputs(inputs, generator))
    plain, survivors, reaction = _worst(pruned, masked, tries)
    in_double = None
    if TOLERANCE < min(plain, survivors) < _MAYBE_ROUNDING:
        in_double = _worst_in_double(pruned, masked, tries)
    return Difference(plain, survivors, reaction, pruned, in_double)


def _worst(
    pruned: nn.Module, masked: nn.Module, tries: Sequence[tuple[Tensor, ...]]
) -> tuple[float, float, float]:
    """Worst differences from the masked module, plain and by survivors, and the reaction."""
    plain, survivors, seen = 0.0, 0.0, []
    for tried in tries:
        want, renormalised = run_masked(masked, tried), run_masked(masked, tried, survivors=True)
        for _ in range(2):
            with torch.no_grad():
                have = flat(pruned(*(x.clone() for x in tried)))
            plain = max(plain, worst_difference(have, want))
            survivors = max(survivors, worst_difference(have, renormalised))
        seen.append(have)
    return plain, survivors, worst_difference(*seen)


def _worst_in_double(
    pruned: nn.Module, masked: nn.Module, tries: Sequence[tuple[Tensor, ...]]
) -> tuple[float, float] | None:
    wide = [tuple(x.double() if x.is_floating_point() else x for x in tried) for tried in tries]
    try:
        plain, survivors, _ = _worst(copy.deepcopy(pruned).double(), masked.double(), wide)
    except (RuntimeError, TypeError):
        return None  # it holds constants or casts of its own
    return plain, survivors

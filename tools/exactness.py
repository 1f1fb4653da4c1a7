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
    tell,
    worst_difference,
    zero_removed,
)
from torch import Tensor, nn

TOLERANCE = 1e-4

Keep = Mapping[str, Sequence[int]]


_TOLERANCE_64 = 1e-7
_ALMOST_64, _VANISHING = 1e-5, 100
_LAST_BIT = 2.0**-23
_NUDGES = 3
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
        by_last_bits: How far the masked module moves when its weights do by their last bit, where
            it is still open.
    """

    plain: float
    survivors: float
    reaction: float
    pruned: nn.Module
    in_double: tuple[float, float] | None = None
    by_last_bits: float = 0.0

    @property
    def outcome(self) -> str:
        """``exact``, ``exact-but-norm`` or ``wrong``."""
        wide = self.in_double or (float("inf"), float("inf"))
        allowed = max(TOLERANCE, self.by_last_bits)
        if self.plain <= allowed or _is_rounding(self.plain, wide[0]):
            return "exact"
        norm = self.survivors <= allowed or _is_rounding(self.survivors, wide[1])
        return "exact-but-norm" if norm else "wrong"

    @property
    def accepted(self) -> float:
        """The difference that the outcome rests on, in float32."""
        return self.plain if self.outcome == "exact" else self.survivors


def _is_rounding(in_float: float, in_double: float) -> bool:
    """Whether a difference goes away in float64, as far as constants of float32 let it."""
    vanishes = in_double <= _ALMOST_64 and in_double <= in_float / _VANISHING
    return in_double <= _TOLERANCE_64 or vanishes


def half_of_each(structures: Mapping[str, Any], rng: random.Random) -> dict[str, list[int]]:
    """Random units that stay: half of every structure."""
    return {name: _sample(s, 0.5, rng) for name, s in structures.items()}


def random_share_of_each(structures: Mapping[str, Any], rng: random.Random) -> dict[str, list[int]]:
    """Random units that stay: another share of every structure."""
    return {name: _sample(s, rng.random(), rng) for name, s in structures.items()}


def _sample(structure: Any, gone: float, rng: random.Random) -> list[int]:
    units = structure.units
    count = min(units, max(1, structure.minimum, round(units * (1 - gone))))
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
    tell(masked, (name for name, _ in pruned.named_parameters()))
    tries = (tuple(inputs), other_inputs(inputs, generator))
    plain, survivors, reaction = _worst(pruned, masked, tries)
    in_double, by_last_bits = None, 0.0
    if TOLERANCE < min(plain, survivors) < _MAYBE_ROUNDING:
        by_last_bits = _moved_by_last_bits(masked, tries, generator)
        in_double = _worst_in_double(pruned, masked, tries)
    return Difference(plain, survivors, reaction, pruned, in_double, by_last_bits)


@torch.no_grad()
def _moved_by_last_bits(
    masked: nn.Module, tries: Sequence[tuple[Tensor, ...]], generator: torch.Generator
) -> float:
    """How far outputs move when every weight does by its last bit: what no order of sums avoids."""
    worst, wanted = 0.0, [run_masked(masked, tried) for tried in tries]
    for _ in range(_NUDGES):
        nudged = copy.deepcopy(masked)
        for weight in nudged.parameters():
            sign = torch.randint(0, 2, weight.shape, generator=generator) * 2 - 1
            weight.mul_(1 + sign * _LAST_BIT)
        for tried, want in zip(tries, wanted, strict=True):
            worst = max(worst, worst_difference(run_masked(nudged, tried), want))
    return worst


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
        plain, survivors, _ = _worst(
            copy.deepcopy(pruned).double(), copy.deepcopy(masked).double(), wide
        )
    except (RuntimeError, TypeError):
        return None  # it holds constants or casts of its own
    return plain, survivors

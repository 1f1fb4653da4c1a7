"""What unprofiled times of whole variants say about each kind of part, and about their sum.

A profile is taken with counters on, rounded to microseconds, and on a busy machine disturbed, so
the time of a kind of part may be off in scale, in its fixed cost and in its slope. Those terms
are shrunk towards zero, as strongly as leaving out one variant at a time finds best: hardly used
where the profile is good, and a regression on whole-model times where it is not. A clock of whole
microseconds hides up to one of every layer at certain sizes, always the same, so each size of each
kind may be off by a little of its own as well.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.latency.surface import Sizes, Surface

Floats = npt.NDArray[np.float64]

# Allowed size of a kind's terms, relative to the time of one such part; zero uses none of them.
_ALLOWED = (0.0, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0)
# Allowed own error of a part at certain sizes.
_HIDDEN_US = (0.0, 0.5, 1.0)
# Noise of a whole-model time, and the room of the quadratic's own terms.
_NOISE = 0.01
_QUADRATIC_ROOM = 0.1
_NO_ROOM = 1e-9
_OUTLIER = 3.0
_ODD = 0.1
_TERMS = 3


@dataclass(frozen=True)
class CorrectedSurface:
    """A surface with the terms that whole-model times added to it; what is left of a part that is
    gone has none.

    Attributes:
        surface: From profiles.
        most: The sizes of the dense part.
        scale: Factor of the surface.
        fixed_us: Added where the part is there at all.
        slope_us: Added in proportion to the product of its sizes, this much at ``most``.
        hidden_us: Added at certain sizes.
    """

    surface: Surface
    most: tuple[int, ...]
    scale: float = 1.0
    fixed_us: float = 0.0
    slope_us: float = 0.0
    hidden_us: Mapping[tuple[int, ...], float] = field(default_factory=dict)

    def predict(self, sizes: Sizes) -> Floats:
        """Microseconds at ``sizes`` of shape (points, axes)."""
        us, there, product = self.terms(sizes)
        hidden = [self.hidden_us.get(tuple(map(int, point)), 0.0) for point in np.atleast_2d(sizes)]
        rest = self.fixed_us * there + self.slope_us * product + np.array(hidden)
        left_us = self.surface.predict(sizes) * (1 - there)
        return np.asarray(np.maximum(self.scale * us + rest, 0.0) + left_us)

    def terms(self, sizes: Sizes) -> tuple[Floats, Floats, Floats]:
        """The surface, whether the part is there, and its relative product of sizes; all of them
        are 0 where it is not."""
        points = np.atleast_2d(np.asarray(sizes, np.int64))
        there = np.all(points > 0, axis=1).astype(np.float64)
        product = np.prod(points / np.maximum(np.array(self.most, np.float64), 1.0), axis=1)
        return self.surface.predict(points) * there, there, product * there


@dataclass(frozen=True)
class Correction:
    """Terms by kind of part, and ``total = c + a * s + b * s**2`` of the corrected sum ``s``.

    Attributes:
        terms: Shape (kinds, 3): change of scale, fixed time and slope in microseconds.
        emptied_us: Time to add for each emptied structure, by kind of structure.
        hidden_us: Shape (cells,): time to add for each part of a kind at certain sizes.
        quadratic: ``(c, a, b)`` in microseconds.
        left_out: Relative errors of each variant when it is left out of the fit, or as it is
            predicted where that is more.
        strength: What was found best: allowed size of a kind's terms, and microseconds hidden.
    """

    terms: Floats
    emptied_us: Floats
    hidden_us: Floats
    quadratic: tuple[float, float, float]
    left_out: Floats
    strength: tuple[float, float]


def fit_correction(
    kind_terms: Floats,
    typical_us: Floats,
    emptied: Floats,
    cells: Floats,
    total_us: Floats,
    besides_us: Floats,
) -> Correction:
    """Fit to whole-model times, in relative terms.

    Args:
        kind_terms: Shape (variants, kinds, 3): ``CorrectedSurface.terms``, summed over the parts.
        typical_us: Shape (kinds,): time of one part of each kind.
        emptied: Shape (variants, kinds of structure): how many are emptied.
        cells: Shape (variants, cells): how many parts of a kind have certain sizes.
        total_us: Shape (variants,): measured.
        besides_us: Shape (variants,): time of what has no terms.
    """
    kinds = len(typical_us)
    s = kind_terms[:, :, 0].sum(axis=1) + besides_us
    units = np.stack([np.ones(kinds), typical_us, typical_us], axis=1)
    emptied_unit_us = float(np.median(typical_us)) if kinds else 1.0
    extra = np.hstack(
        [(kind_terms * units).reshape(len(s), kinds * _TERMS), emptied * emptied_unit_us, cells]
    )
    known = extra.shape[1] - cells.shape[1]
    strengths = list(itertools.product(_ALLOWED, _HIDDEN_US if cells.size else (0.0,)))
    rooms = [
        np.concatenate([np.full(known, allowed), np.full(cells.shape[1], hidden)])
        for allowed, hidden in strengths
    ]
    found = []
    for room, strength in zip(rooms, strengths, strict=True):
        weights, left_out = _ridge(s, extra, total_us, room)
        of_kinds, of_emptied, hidden_us = np.split(
            weights[3:] / weights[1], [kinds * _TERMS, known]
        )
        terms = of_kinds.reshape(kinds, _TERMS) * units
        emptied_us = of_emptied * emptied_unit_us
        rest_us = besides_us + emptied @ emptied_us + cells @ hidden_us
        corrected = _corrected_us(kind_terms, terms) + rest_us
        quadratic = _quadratic(corrected, total_us)
        c, a, b = quadratic
        # Terms that only hold together by parts of negative time do not hold: no part has one.
        predicted_us = c + a * corrected + b * corrected**2
        errors = np.maximum(left_out, np.abs(predicted_us / total_us - 1))
        found.append(Correction(terms, emptied_us, hidden_us, quadratic, errors, strength))
    return min(found, key=lambda correction: round(_typical(correction.left_out), 5))


def _corrected_us(kind_terms: Floats, terms: Floats) -> Floats:
    """Shape (variants,): the parts with their terms, each kind of which takes no negative time."""
    of_kinds = kind_terms[:, :, 0] + np.einsum("vkt,kt->vk", kind_terms, terms)
    return np.asarray(np.maximum(of_kinds, 0.0).sum(axis=1))


def _typical(errors: Floats) -> float:
    """Mean without the worst tenth: a variant hit by a noisy neighbour does not decide."""
    return float(np.mean(np.sort(errors)[: math.ceil((1 - _ODD) * len(errors))]))


def _ridge(s: Floats, extra: Floats, total: Floats, room: Floats) -> tuple[Floats, Floats]:
    """Weights of ``(1, s, s**2, extra...)``, and the left-out errors, which bound the influence.

    Weights go by left-out errors, Schweppe's form of a robust fit (Handschin et al., IEEE PAS-94,
    1975), and fall with the square of what is beyond the bound.
    ``room`` is the allowed size of each weight of ``extra``, those of the kinds first.
    """
    scale = float(np.median(total))
    columns = np.column_stack([np.full(len(s), scale), s, s * s / scale, extra]) / total[:, None]
    # With terms of their own the kinds can scale everything; without, the slope has to.
    of_slope = _QUADRATIC_ROOM if room[:1].any() else 10.0
    room = np.concatenate(
        [[_QUADRATIC_ROOM, of_slope, _QUADRATIC_ROOM], np.maximum(room, _NO_ROOM)]
    )
    prior = np.zeros(columns.shape[1])
    prior[1] = 1.0
    trust = np.ones(len(s))
    for _ in range(4):
        rows = columns * (trust / _NOISE**2)[:, None]
        inverse = np.linalg.inv(rows.T @ columns + np.diag(room**-2.0))
        weights = inverse @ (rows.T @ np.ones(len(s)) + prior / room**2)
        errors = columns @ weights - 1
        leverage = ((rows @ inverse) * columns).sum(axis=1)
        # Judged by what the others say of it: a variant far smaller than all others pulls the fit
        # onto itself, and its own error stays small.
        left_out = np.abs(errors) / np.maximum(1 - leverage, 0.05)
        bound = _OUTLIER * max(1.4826 * float(np.median(left_out)), 1e-4)
        trust = np.minimum(1.0, bound / np.maximum(left_out, 1e-12)) ** 2
    weights = weights.copy()
    weights[0] *= scale
    weights[2] /= scale
    return weights, left_out


def _quadratic(s: Floats, total: Floats) -> tuple[float, float, float]:
    """``(c, a, b)``, rising over twice the range of the sums."""
    (c, a, b), _ = _ridge(s, np.zeros((len(s), 0)), total, np.zeros(0))
    ends: npt.NDArray[Any] = np.array([0.0, 2 * s.max()])
    if np.any(a + 2 * b * ends <= 0.1):
        a, c = np.polyfit(s, total, 1, w=1 / total)
        b = 0.0
    return float(c), float(a), float(b)

"""From sums of parts to whole-model times: a quadratic, and what each kind of part is off by.

The profile of a layer is taken with counters on and rounded to microseconds, so a kind of layer
may be off as a whole; unprofiled times of whole variants say by how much. Those terms are
shrunk towards zero, as strongly as leaving out one variant at a time finds best.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Allowed size of the terms of a kind, relative to its time; zero uses none of them.
_ALLOWED = (0.0, 0.01, 0.02, 0.05, 0.1)
# Noise of a whole-model time, and the room of the quadratic's own terms.
_NOISE = 0.01
_QUADRATIC_ROOM = 0.1
_OUTLIER = 3.0


@dataclass(frozen=True)
class Correction:
    """``total = c + a * s + b * s**2`` of the sum ``s`` that already holds the kinds' terms.

    Attributes:
        kinds: Relative change of the time of each kind of part.
        emptied_us: Time to add for each emptied structure, by kind of structure.
        quadratic: ``(c, a, b)`` in microseconds.
        left_out: Relative errors of each variant when it is left out of the fit.
    """

    kinds: Floats
    emptied_us: Floats
    quadratic: tuple[float, float, float]
    left_out: Floats


def fit_correction(kind_us: Floats, emptied: Floats, total_us: Floats) -> Correction:
    """Fit to whole-model times, in relative terms.

    Args:
        kind_us: Shape (variants, kinds of part): what the surfaces say.
        emptied: Shape (variants, kinds of structure): how many are emptied.
        total_us: Shape (variants,): measured.
    """
    unit_us = _emptied_unit_us(kind_us, emptied)
    extra = np.hstack([kind_us, emptied * unit_us])
    fits = [_ridge(kind_us.sum(axis=1), extra, total_us, allowed) for allowed in _ALLOWED]
    # The median resists the single variant that a noisy neighbour hit.
    best = min(range(len(fits)), key=lambda i: (round(_score(fits[i][1]), 5), i))
    weights, left_out = fits[best]
    slope = weights[1]
    count = kind_us.shape[1]
    kinds, emptied_us = weights[3 : 3 + count] / slope, weights[3 + count :] * unit_us / slope
    corrected = kind_us @ (1 + kinds) + emptied @ emptied_us
    return Correction(kinds, emptied_us, _quadratic(corrected, total_us), left_out)


def _emptied_unit_us(kind_us: Floats, emptied: Floats) -> Floats:
    """A typical time of one structure of each kind, in which to count what emptying leaves."""
    most = np.maximum(emptied.max(axis=0, initial=1.0), 1.0)
    return np.asarray(float(np.median(kind_us.sum(axis=1))) / most / 2)


def _score(left_out: Floats) -> float:
    return float(np.sqrt(np.mean(np.minimum(left_out, _OUTLIER * np.median(left_out)) ** 2)))


def _ridge(s: Floats, extra: Floats, total: Floats, allowed: float) -> tuple[Floats, Floats]:
    """Weights of ``(1, s, s**2, extra...)`` with Huber weights, and the left-out errors."""
    scale = float(np.median(total))
    columns = np.column_stack([np.full(len(s), scale), s, s * s / scale, extra]) / total[:, None]
    room = np.full(columns.shape[1], max(allowed, 1e-9))
    room[:3] = (_QUADRATIC_ROOM, 10.0, _QUADRATIC_ROOM)
    prior = np.zeros(columns.shape[1])
    prior[1] = 1.0
    trust = np.ones(len(s))
    for _ in range(4):
        rows = columns * (trust / _NOISE**2)[:, None]
        inverse = np.linalg.inv(rows.T @ columns + np.diag(room**-2.0))
        weights = inverse @ (rows.T @ np.ones(len(s)) + prior / room**2)
        errors = columns @ weights - 1
        leverage = np.einsum("ij,jk,ik->i", rows, inverse, columns)
        bound = _OUTLIER * max(1.4826 * float(np.median(np.abs(errors))), 1e-4)
        trust = np.minimum(1.0, bound / np.maximum(np.abs(errors), 1e-12))
    left_out = np.abs(errors) / np.maximum(1 - leverage, 0.05)
    weights = weights.copy()
    weights[0] *= scale
    weights[2] /= scale
    return weights, left_out


def _quadratic(s: Floats, total: Floats) -> tuple[float, float, float]:
    """``(c, a, b)``, rising over twice the range of the sums."""
    none = np.zeros((len(s), 0))
    (c, a, b), _ = _ridge(s, none, total, 0.0)
    ends: npt.NDArray[Any] = np.array([0.0, 2 * s.max()])
    if np.any(a + 2 * b * ends <= 0.1):
        a, c = np.polyfit(s, total, 1, w=1 / total)
        b = 0.0
    return float(c), float(a), float(b)

"""Time of one part of a network as a function of the sizes that levels decide.

The mean is a sum of products with non-negative weights: constant, line and stairs in each size,
since kernels work in blocks of 16, 32 or 64 channels. What that form leaves over is taken up by a
Gaussian process whose covariance knows only *the same size* and *the same sizes* (Rasmussen and
Williams 2006, chapter 2), so that a measured step is kept and never smoothed into its neighbours.
Its two strengths are those under which the samples are most likely.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Sizes = npt.NDArray[np.int64]

_BLOCKS = (16, 32, 64)
# Strengths of the process tried, in units of the samples' own noise.
_STRENGTHS = (0.0, 0.3, 1.0, 3.0, 10.0)
# Of the clock's microsecond.
_ABSOLUTE_US = 0.3
# Of more sizes, such as those of all that is concatenated, pairs do.
_MOST_MULTIPLIED = 4
_OUTLIER = 3.0
_REWEIGHTINGS = 4
_SEVERAL = 5


@dataclass(frozen=True)
class Surface:
    """A fitted time; ``predict`` gives microseconds.

    Attributes:
        patches: By which of the sizes are not zero.
        left: What remains where one of the first ``axes`` sizes is zero, by those sizes.
        axes: How many sizes that looks at.
    """

    patches: dict[tuple[bool, ...], "_Patch"]
    left: "Surface | None" = None
    axes: int = 0

    def predict(self, sizes: Sizes) -> Floats:
        """Microseconds at ``sizes`` of shape (points, axes); never negative.

        Where an axis is empty in a way that was never measured, the part is taken to be gone.
        """
        points = np.atleast_2d(np.asarray(sizes, np.int64))
        result = np.zeros(len(points))
        for alive, patch in self.patches.items():
            rows = np.all((points > 0) == np.array(alive, bool), axis=1)
            if rows.any():
                result[rows] = patch.predict(points[rows][:, list(alive)])
        if self.left is not None:
            rows = np.any(points[:, : self.axes] == 0, axis=1)
            result[rows] = self.left.predict(points[rows][:, : self.axes])
        return result


def fit_surface(
    sizes: Sizes, us: Floats, noise: Floats, *, stepped: bool = True, mean: bool = False
) -> Surface:
    """Fit the time of a part to samples.

    Args:
        sizes: Shape (samples, axes): the sizes that levels decide, in channels.
        us: Shape (samples,): measured microseconds.
        noise: Shape (samples,): relative error to expect of each, beside the clock's own.
        stepped: Whether the time may have stairs; kernels that leave zeros out have none.
        mean: Whether samples of equal sizes count by their mean, because more than the sizes
            decides whether there is anything at all, and not by their median.
    """
    points = np.asarray(sizes, np.int64).reshape(len(us), -1)
    if mean and len(us):
        _, owner = np.unique(points, axis=0, return_inverse=True)
        owner = owner.reshape(-1)
        us = (np.bincount(owner, us) / np.bincount(owner))[owner]
    patches: dict[tuple[bool, ...], _Patch] = {}
    for row in np.unique(points > 0, axis=0):
        alive = tuple(bool(value) for value in row)
        chosen = np.all((points > 0) == row, axis=1)
        patches[alive] = _fit_patch(
            points[chosen][:, list(alive)], us[chosen], noise[chosen], stepped
        )
    return Surface(patches)


@dataclass(frozen=True)
class _Patch:
    """The surface where one certain set of axes is not empty."""

    weights: Floats
    cells: Sizes
    coefficients: Floats
    strengths: tuple[float, float]
    stepped: bool

    def predict(self, points: Sizes) -> Floats:
        mean = _features(points, self.stepped) @ self.weights
        covariance = _covariance(points, self.cells, self.strengths)
        return np.maximum(mean + covariance @ self.coefficients, 0.0)


def _fit_patch(points: Sizes, us: Floats, relative: Floats, stepped: bool) -> _Patch:
    cells, values, noise, counts = _cells(points, us, relative)
    features = _features(cells, stepped)
    weights, trust = _robust_weights(features, values, noise)
    # A median of several samples that is off the form is a step, a single sample may be a mishap.
    noise = noise / np.sqrt(np.where(counts >= _SEVERAL, 1.0, trust))
    strengths, coefficients = _fit_process(cells, values - features @ weights, noise)
    return _Patch(weights, cells, coefficients, strengths, stepped)


def _robust_weights(features: Floats, values: Floats, noise: Floats) -> tuple[Floats, Floats]:
    """Non-negative weights of the columns, and how far each cell is trusted (0 to 1).

    What disturbs a measurement makes it longer, so cells above the fit lose trust faster.
    """
    from scipy.optimize import nnls

    scale = np.maximum(np.abs(features).max(axis=0), 1e-12)
    # A little ridge keeps the choice among nearly equal columns steady.
    ridge = 1e-3 * np.sqrt(len(values)) * np.eye(features.shape[1])
    trust = np.ones(len(values))
    for _ in range(_REWEIGHTINGS):
        root = np.sqrt(trust) / noise
        weights, _ = nnls(
            np.vstack([features / scale * root[:, None], ridge]),
            np.concatenate([values * root, np.zeros(len(ridge))]),
        )
        off = (values - features @ (weights / scale)) / noise
        bound = _OUTLIER * max(1.4826 * float(np.median(np.abs(off))), 1.0)
        trust = np.minimum(1.0, (bound / np.maximum(np.abs(off), 1e-9)) ** np.where(off > 0, 2, 1))
    return weights / scale, np.maximum(trust, 1e-3)


def _cells(
    points: Sizes, us: Floats, relative: Floats
) -> tuple[Sizes, Floats, Floats, npt.NDArray[np.int64]]:
    """Samples with equal sizes put together: sizes, median, standard error, how many."""
    cells, owner = np.unique(points, axis=0, return_inverse=True)
    owner = owner.reshape(-1)
    groups = [np.flatnonzero(owner == i) for i in range(len(cells))]
    values = np.array([np.median(us[group]) for group in groups])
    errors = [np.median(relative[group]) / np.sqrt(len(group)) for group in groups]
    counts = np.array([len(group) for group in groups])
    return cells, values, np.array(errors) * values + _ABSOLUTE_US / np.sqrt(counts), counts


def _features(points: Sizes, stepped: bool) -> Floats:
    """Columns of the mean at each point: products over axes of constant, line and stairs."""
    single = [_terms(column) for column in points.T]
    if not single:
        return np.ones((len(points), 1))
    if len(single) == 1 and stepped:
        return np.column_stack(single[0])
    if len(single) == 2 and stepped:
        return np.column_stack([a * b for a, b in product(*single)])
    lines = [column.astype(np.float64) for column in points.T]
    columns = [np.ones(len(points))]
    # Where not stepped, one of them is the number of weights kept, which is a product already.
    if not stepped or len(lines) > _MOST_MULTIPLIED:
        pairs = [a * b for i, a in enumerate(lines) for b in lines[i + 1 :]]
        return np.column_stack([*columns, *lines, *pairs])
    # What is read and written goes by some of the sizes, what is multiplied by all of them, such
    # as experts, their neurons and the width.
    for line in lines:
        columns += [line * before for before in columns]
    return np.column_stack(columns)


def _terms(size: npt.NDArray[Any]) -> list[Floats]:
    line = size.astype(np.float64)
    stairs = [np.ceil(line / block) * block - line for block in _BLOCKS]
    broken = [(size % block != 0).astype(np.float64) for block in _BLOCKS[:2]]
    return [np.ones(len(line)), line, *stairs, *broken]


def _covariance(first: Sizes, second: Sizes, strengths: tuple[float, float]) -> Floats:
    same = first[:, None, :] == second[None, :, :]
    if same.shape[2] == 0:
        return np.zeros(same.shape[:2])
    by_axis, by_cell = strengths
    covariance: Floats = by_axis**2 * same.mean(axis=2) + by_cell**2 * same.all(axis=2)
    return covariance


def _fit_process(
    cells: Sizes, residuals: Floats, noise: Floats
) -> tuple[tuple[float, float], Floats]:
    typical = float(np.median(noise))
    best: tuple[float, tuple[float, float], Floats] | None = None
    for by_axis, by_cell in product(_STRENGTHS, _STRENGTHS):
        strengths = (by_axis * typical, by_cell * typical)
        total = _covariance(cells, cells, strengths) + np.diag(noise**2)
        factor = np.linalg.cholesky(total)
        coefficients = np.linalg.solve(factor.T, np.linalg.solve(factor, residuals))
        likelihood = float(-0.5 * residuals @ coefficients - np.log(np.diag(factor)).sum())
        if best is None or likelihood > best[0] + 1e-9:
            best = (likelihood, strengths, coefficients)
    assert best is not None
    return best[1], best[2]

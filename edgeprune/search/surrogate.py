"""A guess of the joint loss of a plan, learned from the plans evaluated so far.

The joint loss is close to a weighted sum of the additive distortions, with weights that are not
known: what a later layer repairs weighs less, and a whole block out is another thing than a
narrow one. Bayesian linear regression (Bishop, "Pattern Recognition and Machine Learning", 3.3)
around the plain sum learns these weights from few evaluations and says how sure it is.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgeprune.search.problem import Array, Choice, Problem

Index = npt.NDArray[np.intp]

# Standard deviations, as shares: of the weights around one, and of what the model cannot say.
_WEIGHT_SPREAD = 0.5
_MISFIT = 0.02
_FEATURES_PER_GROUP = 3


class Surrogate:
    """Predicts the loss of plans of one problem, in units of the first plan's loss.

    Args:
        problem: All distortions finite.
        plans: Choices that have been evaluated; the first one sets the scale.
        losses: Their finite losses.
    """

    def __init__(self, problem: Problem, plans: Sequence[Choice], losses: Sequence[float]) -> None:
        self._problem = problem
        self._sums, self._features = _level_features(problem, plans[0])
        chosen = np.array(plans)
        x = self._rows(chosen)
        y = np.array(losses) / (abs(losses[0]) or 1.0) - self._plain(chosen)
        prior = np.full(x.shape[1], _WEIGHT_SPREAD**2)
        prior[0] = 1.0
        precision = np.diag(1 / prior) + x.T @ x / _MISFIT**2
        self._covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
        self._mean: Array = self._covariance @ (x.T @ y) / _MISFIT**2

    def promise(self, plans: Index, around: Choice) -> Array:
        """The loss each plan may well have: what is expected less one standard deviation.

        Args:
            plans: Level indices of shape ``(plans, groups)``.
            around: The plan the deviation is measured from.
        """
        x = self._rows(plans)
        step = x - self._rows(around[None, :])
        variance = np.einsum("ij,jk,ik->i", step, self._covariance, step)
        expected = self._plain(plans) + x @ self._mean
        return np.asarray(expected - np.sqrt(np.maximum(variance, 0.0)))

    def sample(self, rng: np.random.Generator) -> Problem:
        """The problem with distortions drawn from what the evaluations leave possible."""
        symmetric: Array = (self._covariance + self._covariance.T) / 2
        jitter = 1e-12 * float(np.trace(symmetric)) * np.eye(len(symmetric))
        root: Array = np.linalg.cholesky(np.asarray(symmetric + jitter, dtype=np.float64))
        weights = (self._mean + root @ rng.standard_normal(len(self._mean)))[1:]
        own = weights.reshape(-1, _FEATURES_PER_GROUP)
        groups = tuple(
            replace(group, distortion=plain + features @ weight)
            for group, plain, features, weight in zip(
                self._problem.groups, self._sums, self._features, own, strict=True
            )
        )
        return Problem(groups, self._problem.pairs, self._problem.base_ms)

    def _rows(self, plans: Index) -> Array:
        """Shape ``(plans, 1 + 3 x groups)``: one, then each group's features at its level."""
        columns = [f[plans[:, g]] for g, f in enumerate(self._features)]
        return np.concatenate([np.ones((len(plans), 1)), *columns], axis=1)

    def _plain(self, plans: Index) -> Array:
        """The sum of the scaled distortions of each plan."""
        parts = [d[plans[:, g]] for g, d in enumerate(self._sums)]
        return np.asarray(np.sum(parts, axis=0) if parts else np.zeros(len(plans)))


def _level_features(problem: Problem, plan: Choice) -> tuple[list[Array], list[Array]]:
    """Scaled distortions of the levels of each group, and features of shape ``(levels, 3)``.

    The features are the distortion, its root, and being at the fastest level. All have the
    scale of a distortion, so that one spread fits all weights; the plan's distortion becomes 1.
    """
    total = problem.evaluate_choice(plan)[0]
    scale = total if total > 0 else max(float(g.distortion.max()) for g in problem.groups)
    scale = scale if scale > 0 else 1.0
    typical = 1.0 / max(len(problem.groups), 1)
    sums, features = [], []
    for group in problem.groups:
        plain = group.distortion / scale
        positive = np.maximum(plain, 0.0)
        level = int(group.time_ms.argmin())
        fastest = np.zeros(len(plain))
        fastest[level] = min(float(positive[level]), 1.0)
        sums.append(plain)
        features.append(np.stack([positive, np.sqrt(positive * typical), fastest], axis=1))
    return sums, features

"""Fidelity and loss on held-back batches, which choose the weights that a recovery keeps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from edgeprune.recovery.data import Batch
from edgeprune.recovery.losses import DistillationLoss, LossWeights

# A finite figure, so that histories are valid JSON.
_WORST = 1e6
_OUTPUT_ERROR = LossWeights()


@dataclass(frozen=True)
class Judgement:
    """How near a student is to the teacher on what was held back.

    Attributes:
        fidelity: R², averaged over the floating-point outputs; -1e6 stands for anything worse.
        loss: What is trained, of the outputs alone; 1e6 stands for anything worse.
    """

    fidelity: float
    loss: float


class Holdout:
    """Judges a student by batches that are never trained on.

    Args:
        teacher: The dense network; its outputs are computed once.
        batches: The held-back batches.
        weights: Of the terms that are trained.

    Attributes:
        weights: Of the terms that judge. Features are left out, for they are a help on the way and
            not what the student is for, and so is what does not apply to these outputs; where
            nothing is left, the output error decides.
        variances: Per output the teacher's variance, summed over a sample's elements; None for
            outputs that are not floating point.
    """

    def __init__(
        self,
        teacher: fx.GraphModule,
        batches: Sequence[Batch],
        weights: LossWeights = _OUTPUT_ERROR,
    ) -> None:
        self._batches = batches
        self._outputs = _outputs(teacher, batches)
        self.variances = [_variance(column) for column in zip(*self._outputs, strict=True)]
        self.weights = self._applicable(weights)
        self._loss = DistillationLoss(self.weights, self.variances)

    def _applicable(self, weights: LossWeights) -> LossWeights:
        columns = zip(*self._outputs, strict=True)
        floats = [c for c, variance in zip(columns, self.variances, strict=True) if variance]
        classes = any(column[0].dim() == 2 for column in floats)
        several = any(len(theirs[0]) > 1 for theirs in self._outputs)
        left = replace(
            weights,
            features=0.0,
            kl=weights.kl if classes else 0.0,
            similarity=weights.similarity if classes and several else 0.0,
        )
        return left if left.output or left.kl or left.similarity else _OUTPUT_ERROR

    def judge(self, student: fx.GraphModule) -> Judgement:
        """Run the student on every held-back batch."""
        outputs = _outputs(student, self._batches)
        fidelity, loss = self._fidelity(outputs), self._mean_loss(outputs)
        return Judgement(
            max(fidelity, -_WORST) if math.isfinite(fidelity) else -_WORST,
            min(loss, _WORST) if math.isfinite(loss) else _WORST,
        )

    def _fidelity(self, outputs: Sequence[tuple[Tensor, ...]]) -> float:
        shares = []
        for index, variance in enumerate(self.variances):
            if variance is None:
                continue
            error = samples = 0.0
            for mine, theirs in zip(outputs, self._outputs, strict=True):
                error += float((mine[index].float() - theirs[index]).double().square().sum())
                samples += len(theirs[index])
            shares.append(1.0 - error / (samples * variance))
        return sum(shares) / max(len(shares), 1)

    def _mean_loss(self, outputs: Sequence[tuple[Tensor, ...]]) -> float:
        total = samples = 0.0
        for mine, theirs in zip(outputs, self._outputs, strict=True):
            total += float(self._loss(mine, theirs)) * len(theirs[0])
            samples += len(theirs[0])
        return total / samples


@torch.no_grad()
def _outputs(module: fx.GraphModule, batches: Sequence[Batch]) -> list[tuple[Tensor, ...]]:
    return [tuple(module(*batch)) for batch in batches]


def _variance(column: Sequence[Tensor]) -> float | None:
    if not column[0].is_floating_point():
        return None
    samples = sum(len(values) for values in column)
    mean = sum(values.double().sum(0) for values in column) / samples
    total = sum(float((values.double() - mean).square().sum()) for values in column)
    return max(total / samples, 1e-12)

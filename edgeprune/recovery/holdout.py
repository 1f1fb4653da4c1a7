"""Fidelity on held-back batches: the share of the dense output's variance that is reproduced."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, fx

from edgeprune.recovery.data import Batch

# A finite figure, so that histories are valid JSON.
_WORST = -1e6


class Holdout:
    """Judges a student by batches that are never trained on.

    Args:
        teacher: The dense network; its outputs are computed once.
        batches: The held-back batches.

    Attributes:
        variances: Per output the teacher's variance, summed over a sample's elements; None for
            outputs that are not floating point.
    """

    def __init__(self, teacher: fx.GraphModule, batches: Sequence[Batch]) -> None:
        self._batches = batches
        self._outputs = _outputs(teacher, batches)
        self.variances = [_variance(column) for column in zip(*self._outputs, strict=True)]

    def fidelity(self, student: fx.GraphModule) -> float:
        """R², averaged over the floating-point outputs; -1e6 stands for anything worse."""
        shares = []
        outputs = _outputs(student, self._batches)
        for index, variance in enumerate(self.variances):
            if variance is None:
                continue
            error = samples = 0.0
            for mine, theirs in zip(outputs, self._outputs, strict=True):
                error += float((mine[index].float() - theirs[index]).double().square().sum())
                samples += len(theirs[index])
            shares.append(1.0 - error / (samples * variance))
        value = sum(shares) / max(len(shares), 1)
        return max(value, _WORST) if math.isfinite(value) else _WORST


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

"""How far the student is from the teacher on one batch.

Every term is relative, so that one set of weights serves all models: 1 means that nothing of the
teacher is reproduced, 0 that all of it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; 0 leaves a term out.

    Attributes:
        output: :func:`output_loss`, averaged over the outputs.
        kl: :func:`kl_loss`, for outputs that are logits.
        features: :func:`feature_loss`, averaged over the paired nodes.
        similarity: :func:`similarity_loss`, for outputs that are embeddings or logits.
    """

    output: float = 1.0
    kl: float = 0.0
    features: float = 0.0
    similarity: float = 0.0


class DistillationLoss:
    """The weighted sum of the terms.

    Args:
        weights: Weights of the terms.
        variances: Per output the variance of the teacher, summed over a sample's elements; None
            for outputs that are not floating point.
    """

    def __init__(self, weights: LossWeights, variances: Sequence[float | None]) -> None:
        self._weights = weights
        self._variances = variances

    def __call__(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The loss of one batch.

        Args:
            student: Outputs, then features, in the order of the teacher's.
            teacher: The same of the teacher.
        """
        count = len(self._variances)
        weights = self._weights
        total = torch.zeros(())
        for index, variance in enumerate(self._variances):
            if variance is None:
                continue
            mine, theirs = student[index].float(), teacher[index].float()
            scaled = weights.output * output_loss(mine, theirs, variance)
            if weights.kl and mine.dim() == 2:
                scaled = scaled + weights.kl * kl_loss(mine, theirs)
            if weights.similarity and mine.dim() == 2 and len(mine) > 1:
                scaled = scaled + weights.similarity * similarity_loss(mine, theirs)
            total = total + scaled / sum(v is not None for v in self._variances)
        pairs = list(zip(student[count:], teacher[count:], strict=False))
        if weights.features and pairs:
            terms = [feature_loss(mine, theirs) for mine, theirs in pairs]
            total = total + weights.features * torch.stack(terms).mean()
        return total


def output_loss(student: Tensor, teacher: Tensor, variance: float) -> Tensor:
    """Squared error as a share of the teacher's variance: 1 - R² of this batch.

    Args:
        student: ``(samples, ...)``; ``teacher`` alike.
        variance: Of the teacher's output, summed over the elements of a sample.
    """
    return (student - teacher).square().sum() / (len(teacher) * variance)


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error as a share of the teacher's mean square."""
    error = (student.float() - teacher.float()).square().mean()
    return error / teacher.float().square().mean().clamp(min=1e-12)


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the cosine similarities between the samples of a batch.

    After Tung and Mori, "Similarity-Preserving Knowledge Distillation" (2019).
    """
    mine, theirs = F.normalize(student, dim=1), F.normalize(teacher, dim=1)
    return (mine @ mine.T - theirs @ theirs.T).square().mean()


def kl_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the predicted classes, in nats.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), at
    temperature 1.
    """
    return F.kl_div(
        F.log_softmax(student, 1), F.log_softmax(teacher, 1), reduction="batchmean", log_target=True
    )

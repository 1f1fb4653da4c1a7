"""One optimisation step: the teacher's answer, the student's, their distance, an update."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, fx

from edgeprune.recipe import RecoveryRecipe
from edgeprune.recovery.augment import augmented
from edgeprune.recovery.data import Batch
from edgeprune.recovery.losses import DistillationLoss
from edgeprune.recovery.settings import Settings
from edgeprune.recovery.working import Precision, inference_copy, training_copy


class Trainer:
    """Updates the parameters of ``student`` in place.

    The loss is a function of one batch and nothing here is global, so that several workers can
    each run one and average gradients before :meth:`update`.

    Args:
        student: The network to train.
        teacher: The dense network.
        pairs: Nodes compared inside both.
        variances: See :class:`DistillationLoss`.
        precision: Arithmetic of both networks.
    """

    def __init__(
        self,
        student: fx.GraphModule,
        teacher: fx.GraphModule,
        pairs: Sequence[str],
        variances: Sequence[float | None],
        recipe: RecoveryRecipe,
        settings: Settings,
        precision: Precision,
    ) -> None:
        self._recipe = recipe
        self._settings = settings
        self._student = training_copy(
            student, pairs, precision=precision, batchnorm=settings.batchnorm
        )
        self._teacher = inference_copy(teacher, pairs, precision=precision)
        self._loss = DistillationLoss(settings.loss, variances)
        self.parameters = [p for p in student.parameters() if p.requires_grad]
        self.optimiser = make_optimiser(student, recipe, settings)

    def gradients(self, batch: Batch, step: int) -> float:
        """Compute the gradients of one batch, anew; returns its loss."""
        generator = torch.Generator().manual_seed(self._recipe.seed * 1_000_003 + step)
        batch = augmented(batch, self._settings.augment, generator)
        with torch.no_grad():
            wanted = self._teacher(*batch)
        loss: Tensor = self._loss(self._student(*batch), wanted)
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def update(self, learning_rate: float) -> bool:
        """Take one step; False, without a step, if a gradient is not finite."""
        given = [p for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in given if p.grad is not None])
        if not math.isfinite(float(norm)):
            return False
        if self._recipe.gradient_clip:
            torch.nn.utils.clip_grads_with_norm_(given, self._recipe.gradient_clip, norm)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.step()
        return True


def make_optimiser(
    student: fx.GraphModule, recipe: RecoveryRecipe, settings: Settings
) -> torch.optim.AdamW:
    """AdamW over everything trainable; vectors (biases, norms) do not decay."""
    trainable = [p for p in student.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trainable if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )

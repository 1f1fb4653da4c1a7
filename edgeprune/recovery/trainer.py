"""One optimisation step: the teacher's answer, the student's, their distance, an update."""

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from edgeprune.formats import ALL_DENSE, Formats
from edgeprune.recipe import RecoveryRecipe
from edgeprune.recovery.answers import Answers
from edgeprune.recovery.augment import augmented
from edgeprune.recovery.data import Draw
from edgeprune.recovery.losses import DistillationLoss
from edgeprune.recovery.masks import Masks
from edgeprune.recovery.settings import Settings
from edgeprune.recovery.working import Precision, lookup_tables, training_copy

_BETAS = (0.9, 0.98)


class Trainer:
    """Updates the parameters of ``student`` in place.

    The loss is a function of one batch and nothing here is global, so that several workers can
    each run one and average gradients before :meth:`update`.

    Args:
        student: The network to train.
        teacher: The dense network, made ready for inference; it returns the pairs as well.
        pairs: Nodes compared inside both.
        variances: See :class:`DistillationLoss`.
        precision: Arithmetic of the student.
        answers: What the teacher would say, where that is known.
        formats: Of the student's layers by node name: blocks that are zero now stay zero, and
            layers compute as their formats do.
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
        answers: Answers | None = None,
        formats: Formats = ALL_DENSE,
    ) -> None:
        self._recipe = recipe
        self._settings = settings
        self._student = training_copy(
            student, pairs, precision=precision, batchnorm=settings.batchnorm, formats=formats
        )
        self._masks = Masks(student, formats)
        self._teacher = teacher
        self._answers = answers
        self._loss = DistillationLoss(settings.loss, variances)
        tables = lookup_tables(student)
        trainable = {n: p for n, p in student.named_parameters() if p.requires_grad}
        self._dense = [p for name, p in trainable.items() if name not in tables]
        self._tables = [p for name, p in trainable.items() if name in tables]
        self.optimisers = _optimisers(self._dense, self._tables, recipe.weight_decay)

    def gradients(self, draw: Draw, step: int) -> float:
        """Compute the gradients of one batch, anew; returns its loss."""
        generator = torch.Generator().manual_seed(self._recipe.seed * 1_000_003 + step)
        batch = augmented(draw.tensors, self._settings.augment, generator)
        if self._answers is not None:
            wanted = self._answers.of(draw.rows)
        else:
            with torch.no_grad():
                wanted = self._teacher(*batch)
        loss: Tensor = self._loss(self._student(*batch), wanted)
        for parameter in (*self._dense, *self._tables):
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def update(self, learning_rate: float) -> bool:
        """Take one step; False, without a step, if a gradient is not finite."""
        self._masks.apply_to_gradients()
        given = [p for p in self._dense if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in given if p.grad is not None])
        looked_up = [p.grad for p in self._tables if p.grad is not None]
        finite = [torch.isfinite(norm), *(torch.isfinite(g._values()).all() for g in looked_up)]
        if not all(finite):
            return False
        if self._recipe.gradient_clip:
            torch.nn.utils.clip_grads_with_norm_(given, self._recipe.gradient_clip, norm)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate
            optimiser.step()
        self._masks.apply_to_weights()
        return True


def _optimisers(
    dense: Sequence[Tensor], tables: Sequence[Tensor], weight_decay: float
) -> list[torch.optim.Optimizer]:
    """AdamW for what every step touches, without decay of vectors; sparse Adam for tables."""
    groups = [
        {"params": [p for p in dense if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in dense if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, betas=_BETAS, fused=True)]
    if tables:
        optimisers.append(torch.optim.SparseAdam(list(tables), betas=_BETAS))
    return optimisers

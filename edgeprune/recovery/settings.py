"""What a recipe leaves to ``auto``, decided for one network."""

from dataclasses import dataclass
from typing import Literal, TypeVar

from torch import Tensor, fx

from edgeprune.recipe import RecoveryRecipe
from edgeprune.recovery.losses import LossWeights
from edgeprune.recovery.working import convolves

T = TypeVar("T")
Augment = Literal["none", "shift", "flip", "shift_flip"]


@dataclass(frozen=True)
class Settings:
    """Every choice of a recovery but its arithmetic, which is measured.

    Attributes:
        kind: ``convolutional`` or ``sequence``, for people.
        learning_rate: Peak.
        batch: Samples a step; 0 keeps the task's batches.
        loss: Weights of the terms.
        augment: Random changes of images.
        batchnorm: Whether statistics are of the batch and updated.
    """

    kind: str
    learning_rate: float
    batch: int
    loss: LossWeights
    augment: Augment
    batchnorm: bool

    def __str__(self) -> str:
        terms = ", ".join(f"{name} {value:g}" for name, value in vars(self.loss).items() if value)
        size = f"batches of {self.batch}" if self.batch else "the task's batches"
        return f"{self.kind} network: learning rate {self.learning_rate:g}, {size}, loss {terms}"


_CONVOLUTIONAL = Settings(
    "convolutional", 2e-3, 64, LossWeights(output=1.0, features=1.0), "shift_flip", True
)
_SEQUENCE = Settings("sequence", 1.5e-3, 48, LossWeights(output=2.5, similarity=10.0), "none", True)
# Output error (1 - R²) from which on students learn at the full rate, and the least share of it.
_FULL_RATE_ERROR = 0.3
_LEAST_RATE_SCALE = 0.05


def resolve(recipe: RecoveryRecipe, student: fx.GraphModule) -> Settings:
    """The recipe's choices, with ``auto`` replaced by what suits the network."""
    usual = _CONVOLUTIONAL if convolves(student) else _SEQUENCE

    loss, usual_loss = recipe.loss, usual.loss
    batchnorm = {"auto": usual.batchnorm, "train": True, "frozen": False}[recipe.batchnorm]
    return Settings(
        usual.kind,
        _chosen(recipe.learning_rate, usual.learning_rate),
        _chosen(recipe.batch, usual.batch) if _batch_is_dynamic(student) else 0,
        LossWeights(
            output=_chosen(loss.output, usual_loss.output),
            kl=_chosen(loss.kl, usual_loss.kl),
            features=_chosen(loss.features, usual_loss.features),
            similarity=_chosen(loss.similarity, usual_loss.similarity),
        ),
        _chosen(recipe.augment, usual.augment),
        batchnorm,
    )


def first_rate_scale(recipe: RecoveryRecipe, fidelity: float) -> float:
    """Factor on the automatic peak for a student that starts at a fidelity.

    A student that is nearly right already is thrown back by steps that teach a poor one: from
    R² 0.92 the full rate of an encoder led down to 0.69, and in twelve minutes not back up.
    """
    if recipe.learning_rate != "auto":
        return 1.0
    return min(max((1.0 - fidelity) / _FULL_RATE_ERROR, _LEAST_RATE_SCALE), 1.0)


def _chosen(value: T | Literal["auto"], otherwise: T) -> T:
    return otherwise if value == "auto" else value


def _batch_is_dynamic(module: fx.GraphModule) -> bool:
    """Whether the graph takes any number of samples, and not only as many as it was captured at."""
    for node in module.graph.nodes:
        if node.op == "placeholder" and isinstance(node.meta.get("val"), Tensor):
            dynamic = node.meta.get("dynamic")
            return bool(dynamic and dynamic[0] is not None)
    return False

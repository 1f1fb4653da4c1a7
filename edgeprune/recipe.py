"""A recipe: every choice of how a model is compressed, strictly typed.

A new setting is one line: a field with its type, bounds and default. ``recipes/default.yaml``
repeats the defaults with a comment each, and a test keeps the two equal.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from edgeprune.locate import find_yaml
from edgeprune.schema import Checked, Range, from_mapping, read_yaml

Share = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(above=0)]
Weight = Annotated[float, Range(0)]
Count = Annotated[int, Range(1)]
# The runtime's own int8, and those that kernels exist for; see ``kernels/packing.py``.
Family = Literal[
    "none",
    "int8",
    "int8-16x4",
    "int8-4x1",
    "int8-1x1",
    "bf16-4x1",
    "bf16-16x1",
    "bf16-32x1",
    "bf16-1x1",
    "f32-4x1",
    "f32-16x1",
    "f32-32x1",
    "f32-1x1",
]

Kind = Literal["all", "heads", "head_width", "experts", "neurons", "channels", "width", "hidden"]


@dataclass(frozen=True)
class CalibrationRecipe(Checked):
    """Data seen while distortion is priced and weights are compensated.

    Attributes:
        samples: Inputs (images, sentences) that Gram matrices and refits see.
        distortion_samples: Inputs on which each alternative is measured alone.
        damping: Ridge added to a Gram matrix, as a share of its mean diagonal.
        held_back: Further inputs that judge plans and fidelity and never fit anything.
    """

    samples: Count = 2048
    distortion_samples: Count = 128
    damping: Positive = 1e-3
    held_back: Count = 256


@dataclass(frozen=True)
class StructuresRecipe(Checked):
    """What of single structures is settled by the user rather than by the search.

    Keys are patterns (``encoder.layer.0.*``), of the names that ``edgeprune inspect`` lists or of
    modules and parameters; then all structures that they have a part in are meant.

    Attributes:
        freeze: Structures that stay whole.
        keep: Share of the units that stays in every plan, or their number above 1.
        minimum: Least number of units that may stay.
        multiple: What levels are multiples of, in place of what the target prefers.
        head_width: Attention whose heads may lose width as well as go; there is no need to say so
            where heads cannot go.
    """

    freeze: tuple[str, ...] = ()
    keep: Mapping[str, Annotated[float, Range(0)]] = field(default_factory=dict)
    minimum: Mapping[str, Count] = field(default_factory=dict)
    multiple: Mapping[str, Count] = field(default_factory=dict)
    head_width: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchRecipe(Checked):
    """The allocation of what is removed.

    Attributes:
        gap: Relative optimality gap at which the exact search may stop.
        time_limit_s: Seconds one exact search may take.
        refine_minutes: Minutes of local search on the joint loss for each target; 0 skips it.
        scalings: Factors on the price of removing much; each gives a starting plan.
        max_levels: Most levels offered of one structure.
        kinds: Kinds of structures to offer, or ``all``.
        formats: Families of formats offered to layers beside dense: ``int8`` is the runtime's own,
            others name a precision and a block of zeros for the sparse kernels; ``none`` offers
            nothing else than dense.
        sparsities: Shares of zeros offered in sparse formats, ascending.
        tolerance: How far below the target a plan may fall before the budget is raised.
        replans: Most corrections of the budget after a measured miss.
    """

    gap: Annotated[float, Range(0, 0.5)] = 1e-3
    time_limit_s: Positive = 30.0
    refine_minutes: Weight = 2.0
    scalings: tuple[Annotated[float, Range(above=0, high=10)], ...] = (1.0, 0.5, 0.25, 0.1)
    max_levels: Annotated[int, Range(2, 256)] = 48
    kinds: tuple[Kind, ...] = ("all",)
    formats: tuple[Family, ...] = ("int8", "int8-16x4", "int8-4x1", "bf16-4x1", "f32-4x1")
    sparsities: tuple[Annotated[float, Range(above=0, high=0.99)], ...] = (
        0.5,
        0.6,
        0.7,
        0.8,
        0.9,
    )
    tolerance: Share = 0.02
    replans: Annotated[int, Range(0, 50)] = 6


@dataclass(frozen=True)
class RefitRecipe(Checked):
    """Sequential least squares on what stands behind removed parts.

    Attributes:
        enabled: Whether to refit at all.
        damping: Ridges towards the present weights, as shares of the mean variance of the
            inputs; each layer takes the one that does best on batches left out.
        scoring_samples: Inputs of the small refit that precedes the scoring of a plan.
    """

    enabled: bool = True
    damping: tuple[Positive, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    scoring_samples: Count = 256


@dataclass(frozen=True)
class ExportRecipe(Checked):
    """What is written beside an artifact.

    Attributes:
        open_sizes: Whether an ONNX file with open sizes is, where the batches have several.
    """

    open_sizes: bool = True


@dataclass(frozen=True)
class MeasureRecipe(Checked):
    """How long artifacts are timed against the dense one.

    Attributes:
        trial_s: Seconds a planned artifact is timed before it is accepted or replanned.
        confirm_s: Seconds for each final artifact, over fresh processes.
        processes: How many fresh processes the confirmation is spread over.
    """

    trial_s: Positive = 10.0
    confirm_s: Positive = 12.0
    processes: Count = 3


@dataclass(frozen=True)
class BatchNormRecipe(Checked):
    """Re-estimation of BatchNorm statistics.

    Attributes:
        reestimate: ``auto`` keeps it where the held-back loss falls, ``never`` leaves it out.
    """

    reestimate: Literal["auto", "never"] = "auto"


@dataclass(frozen=True)
class LossRecipe(Checked):
    """Weights of the distillation terms; 0 leaves a term out.

    Attributes:
        output: Squared error of the outputs, as a share of the dense outputs' variance.
        kl: Divergence of the predicted classes, for outputs that are logits.
        features: Relative squared error along the residual stream (hidden states, feature maps).
        similarity: Difference of the similarities between the samples of a batch.
    """

    output: Weight | Literal["auto"] = "auto"
    kl: Weight | Literal["auto"] = "auto"
    features: Weight | Literal["auto"] = "auto"
    similarity: Weight | Literal["auto"] = "auto"


@dataclass(frozen=True)
class RecoveryRecipe(Checked):
    """Distillation from the dense model on unlabelled batches.

    ``auto`` is chosen by the kind of the network (convolutional or not) and by what was measured
    to be fast here; what was chosen is reported when training starts.

    Attributes:
        minutes: Minutes for each target when the command line does not say; 0 is none.
        steps: Steps whatever they take; 0 is as many as fit into the minutes.
        learning_rate: Peak of the schedule (AdamW).
        weight_decay: AdamW's decoupled weight decay.
        warmup: Share of the time that the learning rate rises.
        schedule: How it falls afterwards.
        batch: Samples a step; 0 keeps the task's own batches.
        loss: Weights of the loss terms.
        precision: Arithmetic of the forward and backward pass; weights stay float32.
        augment: Random changes of image inputs; the dense model sees the same.
        holdout: Share of the samples never trained on, which choose the weights, at most 512.
        patience: Evaluations without gain before stopping; 0 never stops early.
        evaluations: How often the held-back samples are looked at.
        checkpoint_s: Seconds between checkpoints.
        batchnorm: ``train`` updates the statistics, ``frozen`` keeps them.
        gradient_clip: Largest norm of the gradient; 0 does not clip.
        seed: Seed of everything random.
    """

    minutes: Weight = 0.0
    steps: Annotated[int, Range(0)] = 0
    learning_rate: Positive | Literal["auto"] = "auto"
    weight_decay: Weight = 0.0
    warmup: Share = 0.05
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    batch: Annotated[int, Range(0)] | Literal["auto"] = "auto"
    loss: LossRecipe = field(default_factory=LossRecipe)
    precision: Literal["auto", "f32", "bf16"] = "auto"
    augment: Literal["auto", "none", "shift", "flip", "shift_flip"] = "auto"
    holdout: Annotated[float, Range(above=0, high=0.5)] = 0.05
    patience: Annotated[int, Range(0)] = 0
    evaluations: Count = 20
    checkpoint_s: Positive = 60.0
    batchnorm: Literal["auto", "train", "frozen"] = "auto"
    gradient_clip: Weight = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Recipe(Checked):
    """How a model is compressed.

    Attributes:
        name: The file's stem.
        version: Version of the file's format.
        description: One line for people.
        criterion: The order of removal: a file of ``compression/criteria/``.
    """

    name: str
    version: Literal[1] = 1
    description: str = ""
    criterion: str = "second_order"
    calibration: CalibrationRecipe = field(default_factory=CalibrationRecipe)
    structures: StructuresRecipe = field(default_factory=StructuresRecipe)
    search: SearchRecipe = field(default_factory=SearchRecipe)
    refit: RefitRecipe = field(default_factory=RefitRecipe)
    measure: MeasureRecipe = field(default_factory=MeasureRecipe)
    batchnorm: BatchNormRecipe = field(default_factory=BatchNormRecipe)
    recovery: RecoveryRecipe = field(default_factory=RecoveryRecipe)
    export: ExportRecipe = field(default_factory=ExportRecipe)


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe by its shipped name or from a file; keys left out keep their defaults.

    Raises:
        InputError: no such recipe, or a file that is not one.
    """
    path = find_yaml("recipes", name_or_path)
    return from_mapping(Recipe, read_yaml(path), str(path), name=path.stem)

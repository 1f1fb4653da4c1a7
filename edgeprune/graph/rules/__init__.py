"""Rules for operators, one file per family, registered in one table."""

from edgeprune.graph.rules import (
    attention,
    contraction,
    convolution,
    counting,
    elementwise,
    indexing,
    joining,
    linear,
    movement,
    normalisation,
    pooling,
    recurrent,
    reduction,
    reshaping,
    unfolding,
)
from edgeprune.graph.rules.registry import LABEL_RULES, REWRITE_RULES

__all__ = [
    "LABEL_RULES",
    "REWRITE_RULES",
    "attention",
    "contraction",
    "convolution",
    "counting",
    "elementwise",
    "indexing",
    "joining",
    "linear",
    "movement",
    "normalisation",
    "pooling",
    "recurrent",
    "reduction",
    "reshaping",
    "unfolding",
]

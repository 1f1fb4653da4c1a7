"""How much of the dense model's output a compressed model still reproduces."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

Outputs = Sequence[tuple[Tensor, ...]]


@torch.no_grad()
def run_batches(module: fx.GraphModule, batches: Sequence[tuple[Tensor, ...]]) -> list[Any]:
    """The outputs of ``module`` for each batch."""
    return [tuple(module(*batch)) for batch in batches]


def output_error(outputs: Outputs, dense: Outputs) -> float:
    """The share of the dense outputs' variance that is *not* reproduced: 1 - R².

    Summed over features and samples (mean taken over samples) and averaged over the model's
    floating-point outputs. Infinite where an output is not finite.
    """
    shares = []
    for index, reference in enumerate(dense[0]):
        if not reference.is_floating_point():
            continue
        error = variance = 0.0
        total = sum(len(batch[index]) for batch in dense)
        mean = sum(batch[index].double().sum(0) for batch in dense) / total
        for mine, theirs in zip(outputs, dense, strict=True):
            error += float((mine[index].double() - theirs[index].double()).square().sum())
            variance += float((theirs[index].double() - mean).square().sum())
        shares.append(error / max(variance, 1e-30))
    value = sum(shares) / max(len(shares), 1)
    return value if value == value else float("inf")

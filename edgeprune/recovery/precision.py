"""Which arithmetic trains fastest here and still computes the same."""

import time
from typing import get_args

import torch
from torch import Tensor, fx

from edgeprune.formats import ALL_DENSE, Formats
from edgeprune.recovery.data import Batch
from edgeprune.recovery.working import Precision, training_copy

# Relative error of the outputs that bfloat16 may make; a network of sound scale makes 0.01.
_TOLERANCE = 0.1


def choose_precision(
    wanted: str, student: fx.GraphModule, batch: Batch, formats: Formats = ALL_DENSE
) -> tuple[Precision, str]:
    """The arithmetic to train in, and why.

    Args:
        wanted: The recipe's ``f32``, ``bf16`` or ``auto``.
        student: The network to train; its gradients are cleared.
        batch: A typical batch.
        formats: Of the student's layers by node name; they cost time, but the error is bfloat16's
            own.
    """
    if wanted == "f32":
        return "f32", "as the recipe says"
    exact = training_copy(student)
    try:
        rounded = training_copy(student, precision="bf16")
        error = _difference(rounded, exact, batch)
    except RuntimeError as problem:
        return "f32", f"bf16 does not run: {str(problem).splitlines()[0]}"
    if not error < _TOLERANCE:
        return "f32", f"bf16 changes the outputs by {error:.0%}"
    if wanted == "bf16":
        return "bf16", "as the recipe says"
    slow_s, fast_s = (
        step_seconds(training_copy(student, precision=p, formats=formats), student, batch)
        for p in get_args(Precision)
    )
    if fast_s < slow_s:
        return "bf16", f"{slow_s / fast_s:.1f}x as fast as f32"
    return "f32", f"bf16 would take {fast_s / slow_s:.1f}x as long"


@torch.no_grad()
def _difference(rounded: fx.GraphModule, exact: fx.GraphModule, batch: Batch) -> float:
    worst = 0.0
    for mine, theirs in zip(rounded(*batch), exact(*batch), strict=True):
        if theirs.is_floating_point():
            scale = float(theirs.norm()) or 1.0
            worst = max(worst, float((mine - theirs).norm()) / scale)
    return worst if worst == worst else float("inf")


def step_seconds(copy: fx.GraphModule, student: fx.GraphModule, batch: Batch) -> float:
    """Processor seconds of the fastest of five forward and backward passes.

    Not the wall clock's, which other programs on the machine lengthen by chance.
    """
    times = []
    for _ in range(5):
        start = time.process_time()
        _scalar(copy(*batch)).backward()  # type: ignore[no-untyped-call]
        times.append(time.process_time() - start)
        for parameter in student.parameters():
            parameter.grad = None
    return min(times)


def _scalar(outputs: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([o.square().mean() for o in outputs if o.is_floating_point()]).sum()

"""The dense network's outputs for every training sample, computed once instead of at each step.

This halves the cost of a step or better, and it is possible when the outputs are all that is asked
of the dense network, samples come back epoch after epoch, and nothing changes them on the way.
The answers are computed in the task's own order before training starts, so that a resumed run
finds the same ones bit for bit.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, fx

from edgeprune.atomic import atomic_path
from edgeprune.graph.weights import add_tensor
from edgeprune.recovery.data import Batch

_MOST_BYTES = 1 << 30
# Fewer epochs than this do not pay for the pass over all samples, and for its place on the disk.
_LEAST_EPOCHS = 1.3


class Answers:
    """Outputs by sample.

    Args:
        outputs: One tensor an output, ``(samples, ...)``.
    """

    def __init__(self, outputs: Sequence[Tensor]) -> None:
        self._outputs = tuple(outputs)

    def of(self, rows: Tensor) -> Batch:
        """The outputs of the samples with these numbers."""
        return tuple(values[rows] for values in self._outputs)


def answers_of(
    teacher: fx.GraphModule,
    window: Sequence[Batch],
    folder: Path,
    name: str,
    progress: Callable[[str], None],
) -> Answers:
    """Read the answers from the folder, or compute and write them.

    Args:
        teacher: The dense network, made ready for inference.
        window: The batches, in the order that numbers their samples.
        folder: Several runs of one teacher on one task's batches may share it.
        name: Tells teachers and their arithmetic apart.
        progress: Called with a note.
    """
    path = folder / f"answers-{_key(name, window)}.safetensors"
    if path.exists():
        try:
            saved = load_file(path)
            return Answers([saved[str(index)] for index in range(len(saved))])
        except (SafetensorError, OSError):
            path.unlink(missing_ok=True)
    found: list[tuple[Tensor, ...]] = []
    shown_s = time.monotonic()
    with torch.no_grad():
        for index, batch in enumerate(window):
            found.append(tuple(teacher(*batch)))
            if time.monotonic() - shown_s > 1.0:
                shown_s = time.monotonic()
                progress(f"asking the dense network, {index / len(window):.0%}")
    outputs = [torch.cat(column) for column in zip(*found, strict=True)]
    with atomic_path(path) as partial:
        save_file({str(i): values.contiguous() for i, values in enumerate(outputs)}, partial)
    return Answers(outputs)


@torch.no_grad()
def answers_pay(teacher: fx.GraphModule, window: Sequence[Batch], samples_seen: float) -> bool:
    """Whether to compute all answers first.

    Args:
        teacher: The dense network.
        window: All training data.
        samples_seen: How many samples training will see.
    """
    samples = sum(len(tensors[0]) for tensors in window)
    if samples_seen <= _LEAST_EPOCHS * samples:
        return False
    by_size = sorted(window, key=lambda tensors: tensors[0][0].numel())
    small, large = (teacher(*tensors) for tensors in (by_size[0], by_size[-1]))
    # Outputs that follow the length of a sample cannot stand in one tensor.
    uniform = all(a.shape[1:] == b.shape[1:] for a, b in zip(small, large, strict=True))
    per_sample = sum(o[0].numel() * o.element_size() for o in large)
    return uniform and samples * per_sample <= _MOST_BYTES


def _key(name: str, window: Sequence[Batch]) -> str:
    digest = hashlib.sha256(name.encode())
    for batch in window:
        for tensor in batch:
            add_tensor(digest, "", tensor)
    return digest.hexdigest()[:16]

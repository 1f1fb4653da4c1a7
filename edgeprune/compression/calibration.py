"""Which of the task's unlabelled batches serve for what.

The batches are dealt out by position, so that a sorted or bucketed order ends up in every part
alike: most to *fit* (Gram matrices, refitting), some to *score* candidates on data they were
not fitted to, and some are *held back*, seen by nothing but the final fidelity.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from edgeprune.errors import TaskError

Batch = tuple[Tensor, ...]
_DEAL = 8
_SCORE, _HELD = 3, 7


@dataclass(frozen=True)
class Calibration:
    """The parts of a task's batches; none shares a batch with another.

    Attributes:
        fit: Batches for statistics and least squares.
        score: Batches on which candidates are compared.
        held: Batches that only the reported fidelity sees.
        horizon: How many leading batches of the task were dealt out.
    """

    fit: tuple[Batch, ...]
    score: tuple[Batch, ...]
    held: tuple[Batch, ...]
    horizon: int

    def trainable(self, batches: Callable[[], Iterable[Batch]]) -> Callable[[], Iterator[Batch]]:
        """The task's batches without those held back, for recovery."""

        def stream() -> Iterator[Batch]:
            for index, batch in enumerate(batches()):
                if index >= self.horizon or index % _DEAL != _HELD:
                    yield batch

        return stream


def deal(batches: Iterable[Batch], fit: int, score: int, held: int) -> Calibration:
    """Deal batches out until each part has the number of samples asked for.

    Args:
        batches: The task's batches, of which no more than needed are read.
        fit: Samples wanted to fit, likewise ``score`` and ``held``.

    Raises:
        TaskError: There are too few batches to hold any back.
    """
    wanted = {"fit": fit, "score": score, "held": held}
    parts: dict[str, list[Batch]] = {name: [] for name in wanted}
    count = dict.fromkeys(wanted, 0)
    horizon = 0
    for index, batch in enumerate(batches):
        if all(count[name] >= wanted[name] for name in wanted):
            break
        name = {_SCORE: "score", _HELD: "held"}.get(index % _DEAL, "fit")
        horizon = index + 1
        if count[name] < wanted[name]:
            parts[name].append(batch)
            count[name] += len(batch[0])
    if not all(parts.values()):
        raise TaskError(
            f"batches() yielded {horizon} batches, too few to hold some back; "
            f"yield at least {_DEAL}, for example by making each smaller"
        )
    return Calibration(tuple(parts["fit"]), tuple(parts["score"]), tuple(parts["held"]), horizon)


def furthest_from(examples: Sequence[Tensor], batches: Iterable[Batch]) -> Batch | None:
    """The batch of several samples whose sizes differ from the deployed ones in most places.

    What does not vary in the sample of a capture is taken to be fixed, and the first batch of
    sentences may happen to be as long as the deployed ones.
    """

    def differing(batch: Batch) -> int:
        pairs = zip(batch, examples, strict=True)
        return sum(a != b for x, y in pairs for a, b in zip(x.shape, y.shape, strict=True))

    several = (batch for batch in batches if len(batch[0]) > 1)
    return max(several, key=differing, default=None)


def first_samples(batches: Iterable[Batch], samples: int) -> tuple[Batch, ...]:
    """The leading batches that together hold at least ``samples`` samples."""
    chosen: list[Batch] = []
    count = 0
    for batch in islice(batches, None):
        if count >= samples:
            break
        chosen.append(batch)
        count += len(batch[0])
    return tuple(chosen)

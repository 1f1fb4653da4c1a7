"""The task's unlabelled batches as training data: some held back, the rest mixed anew each epoch.

Samples are regrouped, so that an epoch is not the task's batches in another order: samples of
equal shape (images; sentences padded to one length) are shuffled and cut into batches again.
Everything is a function of the seed and a position, so that training can go on anywhere.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeprune.errors import TaskError

Batch = tuple[Tensor, ...]
Batches = Callable[[], Iterable[Batch]]

# What is kept in memory at once; larger data passes by in windows of this size.
_WINDOW_BYTES = 2 << 30
_MOST_HELD = 512


@dataclass(frozen=True)
class Position:
    """The next batch: which epoch, which window of it, which batch of that."""

    epoch: int = 0
    window: int = 0
    index: int = 0


@dataclass(frozen=True, eq=False)
class Draw:
    """A batch to train on.

    Attributes:
        tensors: The inputs.
        rows: Numbers of the samples in their window, in the order they were read.
    """

    tensors: Batch
    rows: Tensor


Maker = Callable[[], Draw]


class TrainingData:
    """Batches to train on, endlessly, and batches held back that are never trained on.

    Args:
        batches: The task's batches; must give the same each time.
        size: Samples a batch; 0 keeps the task's batches as they are.
        holdout: Share of the samples to hold back, at most 512 of them, spread evenly.
        seed: Seed of the order.
        window_bytes: Most memory for samples.

    Raises:
        TaskError: There is only one sample, so none can be held back.
    """

    def __init__(
        self,
        batches: Batches,
        *,
        size: int,
        holdout: float,
        seed: int,
        window_bytes: int = _WINDOW_BYTES,
    ) -> None:
        self._batches = batches
        self._size = size
        self._seed = seed
        self._window_bytes = window_bytes
        window, self._whole = _take(iter(batches()), window_bytes)
        self._held_at = _spread(window, holdout)
        self.held, kept = _part(window, self._held_at)
        self._cached: tuple[int, list[Batch]] = (0, kept)

    @property
    def whole(self) -> bool:
        """Whether the first window holds everything."""
        return self._whole

    @property
    def first_window(self) -> list[Batch]:
        """The task's batches that training sees first, without those held back."""
        return self._cached[1]

    def stream(self, position: Position) -> Iterator[tuple[Draw, Position]]:
        """Batches from ``position`` on, each with the position behind it."""
        epoch, first, skip = position.epoch, position.window, position.index
        while True:
            for number, window in self._windows(first):
                order = self._order(window, epoch, number)
                for index in range(skip, len(order)):
                    yield order[index](), Position(epoch, number, index + 1)
                skip = 0
            epoch, first = epoch + 1, 0

    def typical(self) -> Batch:
        """The batch of median size among those of the first epoch."""
        makers = self._order(self.first_window, 0, 0)
        some = sorted((make().tensors for make in makers[:9]), key=lambda batch: batch[0].numel())
        return some[len(some) // 2]

    def _windows(self, first: int) -> Iterator[tuple[int, list[Batch]]]:
        """Windows of one epoch from ``first`` on; one that holds everything is read only once."""
        if self._whole:
            yield from [self._cached] if first == 0 else []
            return
        iterator, number, ended = iter(self._batches()), 0, False
        while not ended:
            window, ended = _take(iterator, self._window_bytes)
            if number == 0:
                window = _part(window, self._held_at)[1]
            if window and number >= first:
                yield number, window
            number += 1

    def _order(self, window: list[Batch], epoch: int, number: int) -> list[Maker]:
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + epoch) * 1_009 + number)
        makers = _regrouped(window, self._size, generator) if self._size else _as_they_are(window)
        order = torch.randperm(len(makers), generator=generator).tolist()
        return [makers[index] for index in order]


def _take(iterator: Iterator[Batch], limit_bytes: int) -> tuple[list[Batch], bool]:
    """Batches up to a limit, but at least two, and whether the iterator ended."""
    taken: list[Batch] = []
    total = 0
    for batch in iterator:
        taken.append(batch)
        total += sum(tensor.numel() * tensor.element_size() for tensor in batch)
        if total >= limit_bytes and len(taken) > 1:
            return taken, False
    return taken, True


def _spread(window: list[Batch], share: float) -> frozenset[int]:
    """Evenly spaced batches that together hold about the share of the samples, at least one."""
    samples = sum(len(batch[0]) for batch in window)
    wanted = min(share * samples, _MOST_HELD)
    count = max(1, round(len(window) * wanted / max(samples, 1)))
    count = min(count, len(window) - 1)
    return frozenset(int((i + 0.5) * len(window) / count) for i in range(count))


def _part(window: list[Batch], held_at: frozenset[int]) -> tuple[list[Batch], list[Batch]]:
    """The batches held back, and the others; of a single batch an eighth is held back."""
    if held_at:
        held = [batch for index, batch in enumerate(window) if index in held_at]
        return held, [batch for index, batch in enumerate(window) if index not in held_at]
    samples = len(window[0][0]) if window else 0
    if samples < 2:
        raise TaskError(
            f"batches() gave {samples} samples, too few to train on some and hold others back; "
            "yield more"
        )
    cut = max(1, samples // 8)
    batch = window[0]
    return [tuple(t[:cut] for t in batch)], [tuple(t[cut:] for t in batch)]


def _as_they_are(window: list[Batch]) -> list[Maker]:
    makers: list[Maker] = []
    first = 0
    for batch in window:
        rows = torch.arange(first, first + len(batch[0]))
        makers.append(lambda batch=batch, rows=rows: Draw(batch, rows))  # type: ignore[misc]
        first += len(batch[0])
    return makers


def _regrouped(window: list[Batch], size: int, generator: torch.Generator) -> list[Maker]:
    """Samples of equal shape, shuffled and cut into batches of ``size``.

    What is left of a shape waits for another epoch, unless it is all there is: batches of few
    different sizes let the kernels made for one be used again.
    """
    groups: dict[object, list[tuple[int, int, int]]] = {}
    first = 0
    for number, batch in enumerate(window):
        key = tuple((tensor.shape[1:], tensor.dtype) for tensor in batch)
        samples = len(batch[0])
        groups.setdefault(key, []).extend((number, row, first + row) for row in range(samples))
        first += samples
    makers: list[Maker] = []
    for members in groups.values():
        order = torch.randperm(len(members), generator=generator).tolist()
        for start in range(0, max(len(order) - size, 0) + 1, size):
            chosen = [members[i] for i in order[start : start + size]]
            makers.append(_maker(window, chosen))
    return makers


def _maker(window: list[Batch], chosen: list[tuple[int, int, int]]) -> Maker:
    def make() -> Draw:
        tensors = tuple(
            torch.stack([window[number][index][row] for number, row, _ in chosen])
            for index in range(len(window[0]))
        )
        return Draw(tensors, torch.tensor([which for _, _, which in chosen]))

    return make

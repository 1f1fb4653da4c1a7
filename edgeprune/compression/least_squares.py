"""Ridge regression of a layer's change, accumulated over batches that do not fit in memory."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeprune.compression.gram import add_gram
from edgeprune.compression.positive_definite import damped

# Of a batch: inputs (positions, in), and what is lacking at the output (positions, out).
Rows = Callable[[int], tuple[Tensor, Tensor]]

# Every fourth batch judges the ridges that the others were solved with.
_JUDGING = 4


@dataclass
class _Moments:
    """Sums over positions, in float64.

    Inputs are taken from an origin among them: where they vary by less than float32 tells apart
    at their distance from zero, the products would hold nothing but rounding.
    """

    origin: Tensor
    gram: Tensor
    cross: Tensor
    sum_x: Tensor
    sum_r: Tensor
    count: int = 0

    @classmethod
    def around(cls, origin: Tensor, outputs: int) -> "_Moments":
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64)

        inputs = len(origin)
        return cls(
            origin, zeros(inputs, inputs), zeros(inputs, outputs), zeros(inputs), zeros(outputs)
        )

    def add(self, x: Tensor, rest: Tensor) -> None:
        moved = x - self.origin
        add_gram(self.gram, moved)
        self.cross += (moved.T @ rest).double()
        self.sum_x += moved.sum(0).double()
        self.sum_r += rest.sum(0).double()
        self.count += len(x)

    def __add__(self, other: "_Moments") -> "_Moments":
        """Of both, which have one origin."""
        return _Moments(
            self.origin,
            self.gram + other.gram,
            self.cross + other.cross,
            self.sum_x + other.sum_x,
            self.sum_r + other.sum_r,
            self.count + other.count,
        )

    def centred(self) -> tuple[Tensor, Tensor]:
        """Covariance of the inputs, and of inputs and what is lacking."""
        x, r = self.sum_x / self.count, self.sum_r / self.count
        return (
            self.gram / self.count - torch.outer(x, x),
            self.cross / self.count - torch.outer(x, r),
        )

    def solve(self, damping: float) -> Tensor:
        """The change D as (in, out)."""
        gram, cross = self.centred()
        change: Tensor = torch.linalg.solve(damped(gram, damping), cross)
        return change

    def intercept(self, change: Tensor) -> Tensor:
        """The offset that leaves nothing lacking on average."""
        return self.sum_r / self.count - self.mean() @ change

    def mean(self) -> Tensor:
        """Of the inputs."""
        return self.origin.double() + self.sum_x / self.count


@dataclass(frozen=True, eq=False)
class Solution:
    """What leaves least lacking at a layer's output.

    Attributes:
        change: Of the weight, (out, in).
        intercept: (out,).
        gram: Covariance of the inputs, float64 (in, in).
        mean: Of the inputs, float64 (in,).
    """

    change: Tensor
    intercept: Tensor
    gram: Tensor
    mean: Tensor


def solve(rows: Rows, batches: int, dampings: Sequence[float]) -> Solution:
    """The change D (out, in) and c (out,) of a layer that leaves least lacking at its output.

    Minimises ``|R - X Dᵀ - c|² + ridge |D|²``. Of several ridges the one is taken that lowers
    the error most on batches left out; the solution is then of all batches.

    Args:
        rows: Reads one batch.
        batches: How many there are.
        dampings: Ridges relative to the mean variance of the inputs.
    """
    fitted, judging = _accumulate(rows, batches)
    damping = dampings[0]
    if len(dampings) > 1 and judging.count:
        damping = min(dampings, key=lambda d: _change_of_error(fitted.solve(d), judging))
    together = fitted + judging
    change = together.solve(damping)
    gram, _ = together.centred()
    return Solution(
        change.T.float(),
        together.intercept(change).float(),
        gram,
        together.mean(),
    )


def input_moments(inputs: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Covariance (in, in) and mean (in,) in float64 of rows (positions, in) over batches."""
    moments: _Moments | None = None
    for x in inputs:
        if moments is None:
            moments = _Moments.around(x.mean(0), 0)
        moments.add(x, x[:, :0])
    if moments is None:
        raise ValueError("no inputs to take moments of")
    covariance, _ = moments.centred()
    return covariance, moments.mean()


def _change_of_error(change: Tensor, judging: _Moments) -> float:
    """By how much a change moves the squared error on other data; negative is better."""
    gram, cross = judging.centred()
    return float(((gram @ change) * change).sum() - 2 * (cross * change).sum())


def _accumulate(rows: Rows, batches: int) -> tuple[_Moments, _Moments]:
    x, rest = rows(0)
    origin = x.mean(0)
    fitted, judging = (_Moments.around(origin, rest.shape[1]) for _ in range(2))
    for index in range(batches):
        if index:
            x, rest = rows(index)
        (judging if index % _JUDGING == _JUDGING - 1 else fitted).add(x, rest)
    return fitted, judging

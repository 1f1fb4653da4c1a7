"""Inputs of sizes between the deployed ones and a batch's, to try a file with open sizes at."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

Inputs = tuple[Tensor, ...]
_Choice = Callable[[int, int], int]


def inputs_between(
    example: Sequence[Tensor], sample: Sequence[Tensor], axes: Sequence[Mapping[int, str]]
) -> Iterator[Inputs]:
    """The sample's values at other sizes: all open ones half-way to the example's, and each alone.

    Sizes of several axes may hang together, and not all of these need be sizes of the model.

    Args:
        sample: Inputs of other sizes than the example's, along open dimensions only.
        axes: Per input the names of its open dimensions; dimensions of one name go together.
    """
    names = list(dict.fromkeys(name for dims in axes for name in dims.values()))
    yield _resized(example, sample, axes, dict.fromkeys(names, _half_way))
    for alone in names if len(names) > 1 else []:
        yield _resized(example, sample, axes, {alone: lambda _, other: other})


def _resized(
    example: Sequence[Tensor],
    sample: Sequence[Tensor],
    axes: Sequence[Mapping[int, str]],
    choose: Mapping[str, _Choice],
) -> Inputs:
    """The sample's values at sizes chosen by axis from the example's and the sample's."""
    made = []
    for x, y, dims in zip(example, sample, axes, strict=True):
        for dim, name in dims.items():
            size, other = x.shape[dim], y.shape[dim]
            y = fitted(y, dim, choose[name](size, other) if name in choose else size)
        made.append(y.contiguous())
    return tuple(made)


def fitted(x: Tensor, dim: int, size: int) -> Tensor:
    """Cut, or said again."""
    times = -(-size // x.shape[dim])
    return torch.cat([x] * times, dim).narrow(dim, 0, size)


def _half_way(size: int, other: int) -> int:
    middle = (size + other) // 2
    return middle if middle not in (size, other) else max(size, other) + 1

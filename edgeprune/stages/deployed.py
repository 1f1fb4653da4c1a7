"""Batches of any size and length, as the inputs of a model deployed at one fixed shape."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from edgeprune.runtimes.base import Arrays


def deployed_samples(
    batches: Iterable[tuple[Tensor, ...]], examples: Sequence[Tensor], most: int
) -> Iterator[tuple[Tensor, ...]]:
    """Samples of the batches at exactly the shapes of ``examples``, at most ``most`` of them.

    Each sample is cut or padded with zeros (the padding of token ids and masks alike) behind its
    end; a deployed batch above one is filled with consecutive samples, over again where there are
    fewer than it holds.
    """
    size = len(examples[0])
    given = 0
    rows: list[tuple[Tensor, ...]] = []
    for batch in batches:
        for index in range(len(batch[0])):
            if given >= most:
                return
            pieces = zip(batch, examples, strict=True)
            rows.append(tuple(_fit(x[index : index + 1], example[:1]) for x, example in pieces))
            if len(rows) == size:
                yield _stacked(rows)
                given += size
                rows = []
    if rows and not given:
        yield _stacked([rows[index % len(rows)] for index in range(size)])


def as_arrays(sample: Sequence[Tensor]) -> Arrays:
    """NumPy arrays of tensors."""
    return tuple(tensor.numpy() for tensor in sample)


def _stacked(rows: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(column) for column in zip(*rows, strict=True))


def _fit(tensor: Tensor, example: Tensor) -> Tensor:
    if tensor.shape == example.shape:
        return tensor.contiguous()
    fitted = torch.zeros_like(example)
    region = tuple(slice(0, min(a, b)) for a, b in zip(tensor.shape, example.shape, strict=True))
    fitted[region] = tensor[region]
    return fitted

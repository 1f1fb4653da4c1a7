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
    end; a deployed batch above one is filled with consecutive samples.
    """
    size = examples[0].shape[0]
    given = 0
    for batch in batches:
        for start in range(0, len(batch[0]) - size + 1, size):
            if given >= most:
                return
            pieces = zip(batch, examples, strict=True)
            yield tuple(_fit(tensor[start : start + size], example) for tensor, example in pieces)
            given += size


def as_arrays(sample: Sequence[Tensor]) -> Arrays:
    """NumPy arrays of tensors."""
    return tuple(tensor.numpy() for tensor in sample)


def _fit(tensor: Tensor, example: Tensor) -> Tensor:
    if tensor.shape == example.shape:
        return tensor.contiguous()
    fitted = torch.zeros_like(example)
    region = tuple(slice(0, min(a, b)) for a, b in zip(tensor.shape, example.shape, strict=True))
    fitted[region] = tensor[region]
    return fitted

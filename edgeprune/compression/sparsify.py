"""Give a layer the zeros of its format, with the best weights that leaves."""

from collections.abc import Callable

import torch
from torch import Tensor

from edgeprune.compression.block_sparse import block_sparse, block_sparse_levels
from edgeprune.formats import Format

# From a matrix (out, in) and the Gram matrix (in, in) of its inputs to one with a format's zeros.
Sparsify = Callable[[Tensor, Tensor, Format], Tensor]
_DAMPING = 1e-3


def quickly(matrix: Tensor, gram: Tensor, format_: Format) -> Tensor:
    """All blocks chosen at once: for the many plans of a search."""
    found = _padded(matrix, gram, format_)
    return _cut(block_sparse(*found, format_.sparsity, _DAMPING), matrix)


def carefully(matrix: Tensor, gram: Tensor, format_: Format) -> Tensor:
    """Blocks chosen step by step, with what is left solved anew: for the plan that is built."""
    found = _padded(matrix, gram, format_)
    (result,) = block_sparse_levels(*found, [format_.sparsity], _DAMPING)
    return _cut(result, matrix)


def _padded(
    matrix: Tensor, gram: Tensor, format_: Format
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Inputs filled up with silent ones to whole blocks."""
    block = format_.fitted(len(matrix)).block
    if block is None:
        raise ValueError(f"{format_} is no sparse format")
    missing = -matrix.shape[1] % block[1]
    wide = torch.nn.functional.pad(matrix, (0, missing))
    return wide, torch.nn.functional.pad(gram, (0, missing, 0, missing)), block


def _cut(result: Tensor, matrix: Tensor) -> Tensor:
    return result[:, : matrix.shape[1]]

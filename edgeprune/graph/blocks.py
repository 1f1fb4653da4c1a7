"""Blocks of a weight matrix: adjacent outputs by adjacent inputs that are zero together."""

from operator import attrgetter

import torch
from torch import Tensor, fx

from edgeprune.formats import Block, Format, Formats
from edgeprune.graph.layers import weighted_layers


def by_block(matrix: Tensor, block: Block) -> Tensor:
    """(outputs, inputs) as (groups, blocks, rows, depth), inputs filled up with zeros."""
    rows, depth = block
    padded = torch.nn.functional.pad(matrix, (0, -matrix.shape[1] % depth))
    return padded.reshape(len(matrix) // rows, rows, -1, depth).transpose(1, 2)


def largest_blocks(scores: Tensor, sparsity: float) -> Tensor:
    """Which blocks stay when that share of the lowest scores (groups, blocks) goes, as bool."""
    leaving = round(sparsity * scores.numel())
    alive = torch.ones(scores.numel(), dtype=torch.bool)
    alive[torch.topk(scores.flatten(), leaving, largest=False).indices] = False
    return alive.reshape(scores.shape)


def expand_mask(alive: Tensor, block: Block, inputs: int) -> Tensor:
    """Blocks (groups, blocks) that stay as a mask of the matrix (outputs, inputs)."""
    rows, depth = block
    return alive.repeat_interleave(rows, 0).repeat_interleave(depth, 1)[:, :inputs]


def kept_blocks(weight: Tensor, format_: Format) -> Tensor:
    """1 in every block that holds anything, 0 in blocks of zeros; laid out as the weight.

    A product with floats is many times as fast as one with booleans.

    Args:
        weight: Shape (outputs, ...), seen as a matrix of outputs by everything else.
        format_: A sparse one; its block as it is fitted to the outputs.
    """
    matrix = weight.detach().flatten(1)
    block = _fitted_block(format_, len(matrix))
    alive = by_block(matrix != 0, block).any(-1).any(-1)
    kept = expand_mask(alive, block, matrix.shape[1])
    return torch.empty_like(weight, requires_grad=False).copy_(kept.reshape(weight.shape))


def _fitted_block(format_: Format, outputs: int) -> Block:
    block = format_.fitted(outputs).block
    assert block is not None
    return block


@torch.no_grad()
def mask_by_magnitude(module: fx.GraphModule, formats: Formats) -> None:
    """Give every sparse layer of a graph the zeros of its format, in place.

    For artifacts that are only timed: which blocks go decides the quality, not the time.
    """
    for name, layer in weighted_layers(module).items():
        format_ = formats.get(name)
        if format_ is None or format_.block is None:
            continue
        weight = attrgetter(layer.weight)(module)
        matrix = weight.flatten(1)
        block = _fitted_block(format_, len(matrix))
        scores = by_block(matrix, block).square().sum((-1, -2))
        mask = expand_mask(largest_blocks(scores, format_.sparsity), block, matrix.shape[1])
        weight.mul_(mask.reshape(weight.shape))

"""Blocks of zeros stay zero while the rest of a sparse weight learns."""

import operator

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from edgeprune.formats import Block, Formats
from edgeprune.graph.simulation import formatted_layers, weight_name


class Masks:
    """What is removed from the sparse weights of a network, found when this is made.

    Args:
        module: The network as it starts; in its sparse layers whole blocks are zero.
        formats: Of its layers by node name.

    Raises:
        InputError: A format fits no layer.
    """

    def __init__(self, module: fx.GraphModule, formats: Formats) -> None:
        kept: dict[Tensor, Tensor] = {}
        for layer, format_ in formatted_layers(module.graph, formats).items():
            if format_.block is not None:
                weight = operator.attrgetter(weight_name(layer))(module)
                mask = kept_blocks(weight, format_.block)
                kept[weight] = kept[weight] * mask if weight in kept else mask
        self._kept = list(kept.items())

    @torch.no_grad()
    def apply_to_gradients(self) -> None:
        """Let what is removed have no gradient, so that it moves neither norms nor moments."""
        for weight, kept in self._kept:
            if weight.grad is not None:
                weight.grad.mul_(kept)

    @torch.no_grad()
    def apply_to_weights(self) -> None:
        """Set what is removed to zero."""
        for weight, kept in self._kept:
            weight.mul_(kept)


def kept_blocks(weight: Tensor, block: Block) -> Tensor:
    """1 in every block that holds anything, 0 in blocks of zeros; laid out as the weight.

    Blocks at the end of a dimension that they do not divide are smaller. A product with floats is
    many times as fast as one with booleans.

    Args:
        weight: Shape (outputs, ...), seen as a matrix of outputs by everything else.
        block: Outputs by adjacent columns.
    """
    rows, depth = block
    matrix = weight.detach().flatten(1) != 0
    outputs, columns = matrix.shape
    high, wide = -(-outputs // rows), -(-columns // depth)
    padded = F.pad(matrix, (0, wide * depth - columns, 0, high * rows - outputs))
    blocks = padded.reshape(high, rows, wide, depth).any(3).any(1)
    kept = blocks.repeat_interleave(rows, 0).repeat_interleave(depth, 1)[:outputs, :columns]
    return torch.empty_like(weight, requires_grad=False).copy_(kept.reshape(weight.shape))

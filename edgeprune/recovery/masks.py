"""Blocks of zeros stay zero while the rest of a sparse weight learns."""

import operator

import torch
from torch import Tensor, fx

from edgeprune.formats import Formats
from edgeprune.graph.blocks import kept_blocks
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
                mask = kept_blocks(weight, format_)
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

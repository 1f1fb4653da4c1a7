"""The full-size weights with everything removed set to zero."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from edgeprune.graph.network import Network


def masked_state(network: Network, keep: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Parameters and buffers of the captured module, with the entries of removed units zero.

    That covers the columns of consumers as well as the rows, biases and normalisation parameters
    of producers, so the masked module computes what the shrunk one does, but for experts: their
    router may still choose one whose weights are zero.
    """
    stays = network.stays(keep)
    state = {
        name: value.detach().clone() for name, value in network.captured.module.state_dict().items()
    }
    for name, dims in network.layout.parameters.items():
        for dim, units in enumerate(dims):
            if units is None:
                continue
            gone = np.flatnonzero(~network.layout.staying(units, stays))
            if len(gone):
                state[name].index_fill_(dim, torch.from_numpy(gone), 0)
    return state

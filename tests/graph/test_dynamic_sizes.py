"""Networks whose graph computes with the sizes of its inputs."""

import torch
from torch import nn

from edgeprune.graph.capture import capture
from edgeprune.graph.network import analyse


def test_sizes_that_are_multiplied_freeze_nothing() -> None:
    layer = nn.TransformerEncoderLayer(24, 3, 48, dropout=0.0, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    network = analyse(capture(model, (torch.zeros(1, 5, 24),), (torch.randn(7, 5, 24),)))
    units = sorted(structure.units for structure in network.structures.values())
    assert units[:2] == [3, 3] and units.count(48) == 2

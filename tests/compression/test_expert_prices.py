"""What experts cost that a router no longer chooses."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeprune.compression.alternatives import offered_levels
from edgeprune.compression.distortion import measure_distortions
from edgeprune.compression.fidelity import output_error, run_batches
from edgeprune.graph.capture import capture
from edgeprune.graph.network import analyse

sys.path.insert(0, str(Path(__file__).parents[1] / "graph"))
from networks import CASES


@pytest.mark.parametrize("name", ["chosen_experts", "chosen_experts_by_logits"])
def test_the_price_of_a_level_is_the_error_of_the_network_shrunk_to_it(name: str) -> None:
    model, inputs = CASES[name]()
    network = analyse(capture(model, inputs))
    (experts,) = (s for s in network.structures.values() if s.kind == "experts")
    module, order = network.captured.module, np.array([3, 0, 1, 4, 2])
    batches = [(torch.randn(6, 4, generator=torch.Generator().manual_seed(n)),) for n in range(3)]
    dense = run_batches(module, batches)
    cut = offered_levels(experts, 8, 16)[:-1]
    assert cut == tuple(range(experts.least, 5))
    for level in cut:
        levels, orders = {experts.name: (level, 5)}, {experts.name: order}
        priced = measure_distortions(module, [experts], levels, orders, {}, batches, 1e-4)
        shrunk = network.shrink({experts.name: order[-level:].tolist()})
        error = output_error(run_batches(shrunk, batches), dense)
        assert priced[experts.name][0] == pytest.approx(error, rel=1e-3)
        assert error > 0

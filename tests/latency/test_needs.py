"""A layer that only an emptied block read takes no time, whatever its own sizes are."""

import torch
from small_network import layer
from torch import Tensor, nn

from edgeprune.graph.capture import capture
from edgeprune.graph.choices import Choices
from edgeprune.graph.network import Network, analyse
from edgeprune.latency.attribution import Attribution, Part
from edgeprune.latency.correction import CorrectedSurface
from edgeprune.latency.needs import needed_structures
from edgeprune.latency.surface import Surface
from edgeprune.latency.tabulation import Tabulation


class _Gated(nn.Module):
    """Channels weighted by what a few neurons see of all of them, beside a plain way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 1)
        self.squeeze, self.weigh = nn.Linear(24, 8), nn.Linear(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        seen = torch.relu(self.wide(x)).mean((2, 3))
        return x * self.weigh(torch.relu(self.squeeze(seen)))[:, :, None, None]


def _gated() -> tuple[Network, str, str, list[Part]]:
    """The network, the structures of what squeezes and of what it sees, and the parts."""
    network = analyse(capture(_Gated().eval(), (torch.randn(1, 3, 8, 8),)))
    nodes = [n.name for n in network.captured.module.graph.nodes if n.op == "call_function"]
    parts = Attribution(network, [layer(f"/{name}/Op") for name in nodes]).parts()
    neurons, seen = (
        next(s.name for s in network.structures.values() if any(t.tensor == w for t in s.inputs()))
        for w in ("weigh.weight", "squeeze.weight")
    )
    return network, neurons, seen, parts


def test_what_an_emptied_block_read_and_what_reads_it_need_it() -> None:
    network, neurons, seen, _ = _gated()
    needed = needed_structures(network)
    assert needed["stem"] == needed["mul"] == frozenset()
    assert needed["wide"] == needed["mean"] == {neurons, seen}
    assert needed["squeeze"] == needed["weigh"] == {neurons, seen}  # biases alone are constants


def test_a_part_that_nothing_reads_has_no_size_and_takes_no_time() -> None:
    network, neurons, seen, parts = _gated()
    full = {name: s.units for name, s in network.structures.items()}
    part = next(p for p in parts if seen in p.bucket[0] and neurons in p.needs)
    assert all(part.sizes(full))
    assert not any(part.sizes({**full, neurons: 0}))
    choices = Choices({neurons: (0, 4, 8), seen: (12, 24)})
    tabulation = Tabulation(choices, full)
    sizes = torch.tensor([[size] * len(part.axes) for size in (12, 24)]).numpy()
    constant = Surface({}, None, len(part.axes))
    assert constant.predict(sizes).tolist() == [0.0, 0.0]
    surface = CorrectedSurface(constant, tuple(part.sizes(full)), fixed_us=7.0)
    tabulation.add(part, {"dense": surface})
    model = tabulation.model((0.0, 1.0, 0.0))
    assert abs(model.total_ms({neurons: 8, seen: 24}) - 7e-3) < 1e-9
    assert abs(model.total_ms({neurons: 4, seen: 12}) - 7e-3) < 1e-9
    assert abs(model.total_ms({neurons: 0, seen: 24})) < 1e-9

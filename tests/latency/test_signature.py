"""Signatures name what is computed: arguments and wiring count, weights do not."""

import torch
from torch import Tensor, nn

from edgeprune.graph.capture import capture
from edgeprune.graph.network import Network, analyse
from edgeprune.latency.signature import bucket_class, network_signature


class _Net(nn.Module):
    """Two hidden convolutions whose arguments leave every shape as it is."""

    def __init__(self, first: int, second: int, source: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.first = nn.Conv2d(8, 16, 3, padding=first, dilation=first)
        self.second = nn.Conv2d(8, 16, 3, padding=second, dilation=second)
        self.ends = nn.ModuleList([nn.Conv2d(16, 8, 1) for _ in range(2)])
        self.source = source

    def forward(self, x: Tensor) -> Tensor:
        stem = torch.relu(self.stem(x))
        after = stem + self.ends[0](torch.relu(self.first(stem)))
        source = after if self.source == "after" else stem
        return after + self.ends[1](torch.relu(self.second(source)))


def _network(first: int = 1, second: int = 1, source: str = "after", seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return analyse(capture(_Net(first, second, source).eval(), (torch.randn(1, 3, 12, 12),)))


def test_other_weights_are_the_same_network() -> None:
    assert network_signature(_network(seed=1)) == network_signature(_network(seed=2))


def test_arguments_and_wiring_make_another_network_at_equal_shapes() -> None:
    networks = [_network(), _network(first=2), _network(second=2), _network(source="stem")]
    shapes = [[n.shapes(name) for name in ("first", "second")] for n in networks]
    assert all(found == shapes[0] for found in shapes)
    assert len({network_signature(network) for network in networks}) == len(networks)


def test_parts_are_alike_only_where_their_arguments_are() -> None:
    def kinds(network: Network) -> list[str]:
        return [
            bucket_class(network, network.structures_of(node), [node])
            for node in ("first", "second")
        ]

    alike, unlike = kinds(_network()), kinds(_network(second=2))
    assert alike[0] == alike[1] == unlike[0]
    assert unlike[0] != unlike[1]

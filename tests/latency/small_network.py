"""A small network with several structures, and everything to profile it in a process."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.devices import device
from edgeprune.graph.capture import capture
from edgeprune.graph.choices import Choices
from edgeprune.graph.network import Network, analyse
from edgeprune.latency.fingerprint import take
from edgeprune.latency.model import LatencyModel
from edgeprune.latency.profiler import profile_network
from edgeprune.latency.table import Table
from edgeprune.target import Target, load_target

VARIANTS = 10


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(16, 32, 3, padding=1)
        self.second = nn.Conv2d(32, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(_Block(), _Block(), _Block())
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(torch.relu(self.stem(x))).mean((2, 3)))


def small_network() -> Network:
    """Three residual blocks of 32 channels on a stream of 16."""
    torch.manual_seed(0)
    return analyse(capture(_Net().eval(), (torch.randn(1, 3, 24, 24),)))


def layer(name: str, us: float = 1.0, original: list[str] | None = None) -> dict[str, Any]:
    """A layer of a profile, made from ``original``, or from what it is called after."""
    return {"name": name, "original": [name] if original is None else original, "us": us}


def offered(network: Network) -> Choices:
    """Multiples of eight; inner channels may go altogether."""
    return Choices(
        {
            name: tuple(range(0 if s.removable else 8, s.units + 1, 8))
            for name, s in network.structures.items()
        }
    )


def profile(folder: Path, network: Network | None = None) -> tuple[LatencyModel, Table]:
    """Profile it with the table and the work files in ``folder``."""
    torch.set_num_threads(1)
    network = network or small_network()
    target: Target = load_target("x86")
    place = device("local")
    table = Table(folder / "table.jsonl", take(place, target))
    model = profile_network(
        network, target, place, offered(network), table, folder / "work", variants=VARIANTS
    )
    return model, table


if __name__ == "__main__":
    profile(Path(sys.argv[1]))

"""The digits network with the weights it starts from, and a network that each setting breaks."""

import torch
from torch import Tensor, nn

from edgeprune.tasks.digits import SIZE, DigitNet


class Fourier(nn.Module):
    """An operator that no rule knows between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.fft.fft(self.up(x)).real)


class Branch(nn.Module):
    """Control flow that depends on data."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


MODELS = {"digits": DigitNet, "fourier": Fourier, "branch": Branch}


class Task:
    quality_name = "none"

    def __init__(self, net: str = "digits") -> None:
        self._net = net

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return MODELS[self._net]().eval()

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 1, SIZE, SIZE) if self._net == "digits" else torch.zeros(1, 4),)

    def batches(self) -> list[tuple[Tensor, ...]]:
        return [(torch.cat([x, x]),) for x in self.example_inputs()] * 8

    def quality(self, predict) -> float:  # type: ignore[no-untyped-def]
        return 0.0

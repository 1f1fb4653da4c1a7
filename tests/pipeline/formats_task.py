"""A task for formats: two feed-forward blocks beside shortcuts on rows of made-up features."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROWS, WIDTH, INNER = 64, 128, 512


class Block(nn.Module):
    """Two linear layers in a row beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.down(F.gelu(self.up(x))))


class Task:
    """Quality is the agreement with the dense network's own class on 40 inputs."""

    quality_name = "agreement"

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(Block(), Block(), nn.Linear(WIDTH, 5)).eval()

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (self._rows(1, 7),)

    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        for index in range(24):
            yield (self._rows(8, index),)

    def quality(self, predict) -> float:  # type: ignore[no-untyped-def]
        rows, net = self._rows(40, 99), self.model()
        with torch.no_grad():
            wanted = net(rows).mean(1).argmax(1).numpy()
        found = [predict((row[None].numpy(),))[0].mean(1).argmax() for row in rows]
        return float(np.mean(found == wanted))

    def _rows(self, count: int, seed: int) -> Tensor:
        return torch.randn(count, ROWS, WIDTH, generator=torch.Generator().manual_seed(seed))

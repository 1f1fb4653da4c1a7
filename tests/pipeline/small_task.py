"""A task small enough to be compressed in seconds: a residual network on made-up images."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE, WIDTH, CLASSES = 24, 32, 5


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + 0.3 * self.conv2(F.relu(self.conv1(x))))


class Net(nn.Module):
    """Stem, three blocks, head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


class Task:
    """Quality is the agreement with the dense network's own class on 40 images."""

    quality_name = "agreement"

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return Net().eval()

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (self._images(1, 7),)

    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        for index in range(24):
            yield (self._images(16, index),)

    def quality(self, predict) -> float:  # type: ignore[no-untyped-def]
        images = self._images(40, 1000)
        with torch.no_grad():
            wanted = self.model()(images).argmax(1).numpy()
        found = [predict((image[None].numpy(),))[0].argmax() for image in images]
        return float(np.mean(wanted == np.array(found)))

    def _images(self, count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randn(count, 3, 4, 4, generator=generator)
        return F.interpolate(coarse, (SIZE, SIZE), mode="bilinear")

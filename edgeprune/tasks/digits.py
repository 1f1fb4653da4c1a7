"""Handwritten digits: a task that needs nothing but scikit-learn.

The 1,797 real 8x8 images that ship with scikit-learn are enlarged to 64x64, so that a small
residual network does milliseconds of real work. Its dense model is trained once (about a minute)
and kept in the user's cache.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.atomic import atomic_path
from edgeprune.console import progress
from edgeprune.errors import TaskError
from edgeprune.locate import cache_folder

SIZE = 64
WIDTHS = (48, 96, 192)
BLOCKS = 3
TEST_IMAGES = 500
BATCH = 32
# Passes over the training images that batches() gives: one as they are, the rest shifted.
PASSES = 4
# (image size, epochs): learning at half size first costs a quarter of the time.
PHASES = ((SIZE // 2, 5), (SIZE, 2))
TRAIN_BATCH = 64
PEAK_LEARNING_RATE = 4e-3


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels:
            projection = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels_in, H, W) to (N, channels, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class DigitNet(nn.Module):
    """A residual network for grey images; (N, 1, H, W) to 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, WIDTHS[0], 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTHS[0])
        blocks: list[nn.Module] = []
        width = WIDTHS[0]
        for stage, channels in enumerate(WIDTHS):
            for index in range(BLOCKS):
                stride = 2 if stage and index == 0 else 1
                blocks.append(Block(width, channels, stride))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (N, 10)."""
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Task:
    """Classify handwritten digits; quality is the accuracy on 500 images never trained on."""

    quality_name = "accuracy"

    def __init__(self) -> None:
        self._data: tuple[Tensor, Tensor] | None = None

    def model(self) -> nn.Module:
        """The dense network: from the cache, or trained now."""
        from safetensors.torch import load_file, save_file

        weights = _weights_file()
        net = DigitNet()
        if weights.is_file():
            net.load_state_dict(load_file(weights))
            return net.eval()
        images, labels = self._images()
        net = train(images[TEST_IMAGES:], labels[TEST_IMAGES:])
        with atomic_path(weights) as partial:
            save_file(net.state_dict(), partial)
        return net

    def example_inputs(self) -> tuple[Tensor, ...]:
        """One image, (1, 1, 64, 64)."""
        return (enlarged(self._images()[0][:1], SIZE),)

    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        """Training images without their labels, first as they are, then shifted a little."""
        images = enlarged(self._images()[0][TEST_IMAGES:], SIZE)
        generator = torch.Generator().manual_seed(1)
        for number in range(PASSES):
            order = torch.randperm(len(images), generator=generator)
            for start in range(0, len(images) - BATCH + 1, BATCH):
                batch = images[order[start : start + BATCH]]
                yield (batch if number == 0 else shifted(batch, generator),)

    def quality(self, predict: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> float:
        """Share of the held-out images that are recognised, one at a time."""
        images, labels = self._images()
        pixels = enlarged(images[:TEST_IMAGES], SIZE).numpy()
        found = [int(np.argmax(predict((pixels[i : i + 1],))[0])) for i in range(TEST_IMAGES)]
        return float(np.mean(np.array(found) == labels[:TEST_IMAGES].numpy()))

    def _images(self) -> tuple[Tensor, Tensor]:
        """All images (1797, 1, 8, 8) in 0..1 and labels, in one fixed shuffled order."""
        if self._data is None:
            try:
                from sklearn.datasets import load_digits
            except ImportError as error:
                raise TaskError(
                    "task 'digits' needs scikit-learn; run pip install 'edgeprune[demo]'"
                ) from error
            digits = load_digits()
            order = torch.randperm(len(digits.images), generator=torch.Generator().manual_seed(0))
            images = torch.tensor(digits.images / 16.0, dtype=torch.float32)[:, None]
            self._data = images[order], torch.tensor(digits.target)[order]
        return self._data


def enlarged(images: Tensor, size: int) -> Tensor:
    """Images (N, 1, 8, 8) in 0..1 as (N, 1, size, size) of about zero mean and unit deviation."""
    pixels = F.interpolate(images, size=(size, size), mode="bicubic", align_corners=False)
    return (pixels - 0.305) / 0.37


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images moved together by up to a sixteenth of their size."""
    reach = images.shape[-1] // 16
    down, right = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
    return torch.roll(images, (down, right), (2, 3))


def train(images: Tensor, labels: Tensor) -> DigitNet:
    """The dense network, trained from scratch; the same weights on the same machine every time.

    Args:
        images: (N, 1, 8, 8) in 0..1.
        labels: (N,) whole numbers 0..9.
    """
    # One thread with bf16 beats many: it is not slowed down by others' work on a shared machine.
    fast = torch.cpu._is_avx512_bf16_supported()
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if fast else threads)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            return _trained(images, labels, fast)
    finally:
        torch.set_num_threads(threads)


def _trained(images: Tensor, labels: Tensor, bf16: bool) -> DigitNet:
    net = DigitNet().train()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(2)
    per_epoch = len(images) // TRAIN_BATCH
    steps = per_epoch * sum(epochs for _, epochs in PHASES)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    cost = float(sum(size**2 * epochs for size, epochs in PHASES))
    with progress("training the dense digits network (once)", cost) as bar:
        for size, epochs in PHASES:
            pixels = enlarged(images, size)
            for _ in range(epochs):
                order = torch.randperm(len(pixels), generator=generator)
                for chosen in order[: per_epoch * TRAIN_BATCH].view(per_epoch, TRAIN_BATCH):
                    batch = shifted(pixels[chosen], generator)
                    batch = batch.contiguous(memory_format=torch.channels_last)
                    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                        logits = net(batch)
                    loss = F.cross_entropy(logits.float(), labels[chosen], label_smoothing=0.05)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()
                    bar.advance(size**2 / per_epoch)
    net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return net.eval()


def _weights_file() -> Path:
    """The cached weights of exactly this source and this torch."""
    source = Path(__file__).read_bytes() + torch.__version__.encode()
    return cache_folder("tasks") / f"digits-{hashlib.sha256(source).hexdigest()[:16]}.safetensors"

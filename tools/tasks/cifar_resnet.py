"""Development task: the pretrained CIFAR-10 ResNets of the shared data folder.

Setting ``net`` is resnet20, resnet32 or resnet56. The data is looked for in ``EDGEPRUNE_DATA``,
else in ``../shared/data`` beside the checkout.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.errors import TaskError
from edgeprune.factory import load_weights

NETS = ("resnet20", "resnet32", "resnet56")
BATCH = 64
PAD = 4


class Task:
    """Classify CIFAR-10; quality is the accuracy on 499 lossless test images."""

    quality_name = "accuracy"

    def __init__(self, net: str = "resnet56", augment: bool = True) -> None:
        if net not in NETS:
            raise TaskError(f"net is '{net}'; choose one of {', '.join(NETS)}")
        self._net = net
        self._augment = augment
        self._loaders = _module("load")
        self._models = _module("models")

    def model(self) -> nn.Module:
        """The pretrained network."""
        model: nn.Module = self._models.CifarResNet(int(self._net.removeprefix("resnet")))
        load_weights(model, data_folder() / f"{self._net}_cifar10.pt")
        return model.eval()

    def example_inputs(self) -> tuple[Tensor, ...]:
        """One test image, (1, 3, 32, 32)."""
        return (self.pixels(self.test_images()[0][:1]),)

    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        """50,000 training images in batches of 64.

        The first 4,096 are as they are, for calibration; of the rest half are mirrored and all
        are moved by up to four pixels, unless ``augment`` is false.
        """
        images, _ = self._loaders.cifar10("train", "jpeg")
        random = np.random.default_rng(0)
        order = random.permutation(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            batch = self.pixels(images[order[start : start + BATCH]])
            yield (_augmented(batch, random) if self._augment and start >= 4096 else batch,)

    def quality(self, predict: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> float:
        """Share of the lossless test images that are recognised."""
        images, labels = self.test_images()
        return float(np.mean(self.classes(predict, images) == labels))

    def agreement(
        self,
        predict: Callable[[tuple[Any, ...]], tuple[Any, ...]],
        dense: Callable[[tuple[Any, ...]], tuple[Any, ...]],
        count: int = 5000,
    ) -> float:
        """Share of the JPEG test images on which a model says what the dense model says."""
        images = self.agreement_images(count)
        return float(np.mean(self.classes(predict, images) == self.classes(dense, images)))

    def agreement_images(self, count: int = 5000) -> Any:
        """JPEG test images (count, 32, 32, 3) uint8."""
        return self._loaders.cifar10("test_a", "jpeg")[0][:count]

    def test_images(self) -> tuple[Any, Any]:
        """Lossless test images (499, 32, 32, 3) uint8 and their labels."""
        images, labels = self._loaders.cifar10("test_a", "lossless")
        return images, labels

    def pixels(self, images: Any) -> Tensor:
        """Normalised (N, 3, 32, 32) float32 of uint8 images (N, 32, 32, 3)."""
        scaled = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self._models.MEAN, self._models.STD))
        return ((scaled - mean) / std).contiguous()

    def classes(self, predict: Callable[[tuple[Any, ...]], tuple[Any, ...]], images: Any) -> Any:
        """The class (N,) that ``predict`` gives each image, one at a time."""
        pixels = self.pixels(images).numpy()
        found = [int(np.argmax(predict((pixels[i : i + 1],))[0])) for i in range(len(pixels))]
        return np.array(found)


def data_folder() -> Path:
    """The folder of the development data.

    Raises:
        TaskError: it is not there.
    """
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("EDGEPRUNE_DATA") or beside)
    if not (folder / "load.py").is_file():
        raise TaskError(f"no development data in {folder}; set EDGEPRUNE_DATA to its folder")
    return folder


def _augmented(batch: Tensor, random: np.random.Generator) -> Tensor:
    flipped = torch.from_numpy(random.random(len(batch)) < 0.5)
    batch = torch.where(flipped.view(-1, 1, 1, 1), batch.flip(3), batch)
    padded = nn.functional.pad(batch, (PAD,) * 4)
    size = batch.shape[-1]
    moves = random.integers(0, 2 * PAD + 1, (len(batch), 2))
    return torch.stack(
        [
            image[:, y : y + size, x : x + size]
            for image, (y, x) in zip(padded, moves.tolist(), strict=True)
        ]
    )


def _module(name: str) -> ModuleType:
    path = data_folder() / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"edgeprune_data_{name}", path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""Image classification: a model, and images in folders or an ``.npz``.

The model is a torch factory with its weights, or a file that holds both.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.console import progress
from edgeprune.errors import TaskError
from edgeprune.factory import build_model, load_weights
from edgeprune.image_files import ImageSet, read_images
from edgeprune.model_files import load_model, takes_channels_last

BATCH = 32


class Task:
    """Classify images; quality is the accuracy on the test images.

    Args:
        model: The network with its weights: an ONNX file, or a ``.pt2`` of ``torch.export``. An
            ONNX file may take its images channels last, as Keras writes it.
        factory: What makes the network instead: ``module:function`` or ``file.py:function``.
        weights: Its state dict, as ``.safetensors`` or a plain ``torch.save`` file.
        images: Unlabelled images: a folder, or an ``.npz`` with ``x`` (N, H, W, C) uint8.
        test: Labelled images: a folder with one folder a class (classes in sorted order), or an
            ``.npz`` with ``x`` and ``y``.
        size: Side of the square network input in pixels; 0 keeps that of the images.
        mean: What is subtracted from pixels in 0..1: one number a channel, with commas.
        std: What they are divided by afterwards.
    """

    quality_name = "accuracy"

    def __init__(
        self,
        *,
        images: Path,
        test: Path,
        model: Path | None = None,
        factory: str = "",
        weights: Path | None = None,
        size: int = 0,
        mean: str = "0",
        std: str = "1",
    ) -> None:
        if size < 0:
            raise TaskError(f"size is {size}; give the side of the input in pixels, or 0")
        if (model is None) == (not factory) or (weights is None) != (not factory):
            raise TaskError(
                "the model is given in one of two ways; add --set model=FILE, or --set factory=... "
                "--set weights=FILE"
            )
        self._model, self._factory, self._weights = model, factory, weights
        self._mean = _numbers("mean", mean)
        self._std = _numbers("std", std)
        if (self._std <= 0).any():
            raise TaskError(f"std is '{std}'; it must be above zero")
        self._train = read_images(images, size, labelled=False)
        self._test = read_images(test, size, labelled=True)
        for name, values in (("mean", self._mean), ("std", self._std)):
            if len(values) not in (1, self._train.channels):
                raise TaskError(
                    f"{name} has {len(values)} numbers, the images {self._train.channels} channels"
                )
        self._channels_last = model is not None and takes_channels_last(model, self._train.channels)

    def model(self) -> nn.Module:
        """The dense network with its weights."""
        if self._model is not None:
            return load_model(self._model)
        assert self._weights is not None  # the constructor sees to it
        model = build_model(self._factory)
        load_weights(model, self._weights)
        return model.eval()

    def example_inputs(self) -> tuple[Tensor, ...]:
        """One test image, (1, C, H, W), or (1, H, W, C) where the model takes it so."""
        return (self._pixels(self._test, [0]),)

    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        """All unlabelled images once, in one fixed shuffled order."""
        order = torch.randperm(len(self._train), generator=torch.Generator().manual_seed(0))
        for chosen in order.tensor_split(max(1, -(-len(order) // BATCH))):
            yield (self._pixels(self._train, chosen.tolist()),)

    def quality(self, predict: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> float:
        """Share of the test images whose highest output is their class."""
        right = 0
        with progress("classifying the test images", len(self._test)) as bar:
            for index in range(len(self._test)):
                outputs = predict((self._pixels(self._test, [index]).numpy(),))
                right += int(np.argmax(outputs[0])) == self._test.label(index)
                bar.advance()
        return right / len(self._test)

    def _pixels(self, images: ImageSet, chosen: list[int]) -> Tensor:
        """Normalised float32 pixels of the chosen images, laid out as the model takes them."""
        raw = torch.from_numpy(np.stack([images.pixels(index) for index in chosen]))
        scaled = (raw.float() / 255 - self._mean) / self._std
        laid_out = scaled if self._channels_last else scaled.permute(0, 3, 1, 2)
        return laid_out.contiguous()


def _numbers(name: str, text: str) -> Tensor:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise TaskError(f"{name} is '{text}'; write numbers like 0.485,0.456,0.406") from error
    return torch.tensor(values)

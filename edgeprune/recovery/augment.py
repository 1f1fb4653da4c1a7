"""Random shifts and flips of image inputs; student and teacher see the same image."""

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeprune.recovery.data import Batch
from edgeprune.recovery.settings import Augment

# Largest shift, as a share of the image's sides (2 of 32 pixels).
_SHIFT = 1 / 16


def augmented(batch: Batch, how: Augment, generator: torch.Generator) -> Batch:
    """The batch with its images changed; anything that is not an image stays as it is.

    Images are floating-point tensors ``(samples, channels, height, width)`` with 1, 3 or 4
    channels. A shift is common to the batch and pads by reflection; a flip mirrors left and right,
    each image with probability 1/2.
    """
    if how == "none":
        return batch
    return tuple(_changed(t, how, generator) if _is_image(t) else t for t in batch)


def _is_image(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and tensor.is_floating_point() and tensor.shape[1] in (1, 3, 4)


def _changed(images: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    if how in ("flip", "shift_flip"):
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    if how in ("shift", "shift_flip"):
        images = _shifted(images, generator)
    return images


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    height, width = images.shape[2:]
    down, right = (round(size * _SHIFT) for size in (height, width))
    if not down and not right:
        return images
    top = int(torch.randint(2 * down + 1, (), generator=generator))
    left = int(torch.randint(2 * right + 1, (), generator=generator))
    padded = F.pad(images, (right, right, down, down), mode="reflect")
    return padded[:, :, top : top + height, left : left + width]

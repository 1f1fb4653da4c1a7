"""Models that come as one file, graph and weights together."""

from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import TaskError

if TYPE_CHECKING:
    from torch import nn


def load_model(path: Path) -> "nn.Module":
    """The model of an ONNX or ``.pt2`` file, in eval mode.

    Raises:
        InputError: Another kind of file, a missing or damaged one, or a model that cannot be used.
        UnavailableError: The package onnx is not installed.
    """
    if path.suffix == ".onnx":
        from edgeprune.onnx_import import load_onnx

        return load_onnx(path)
    if path.suffix == ".pt2":
        from edgeprune.pt2_import import load_pt2

        return load_pt2(path)
    raise TaskError(f"{path} is no model file; give an .onnx or a .pt2 file")


def takes_channels_last(path: Path, channels: int) -> bool:
    """Whether an ONNX file declares its first input as (N, H, W, channels).

    Raises:
        InputError: As for :func:`load_model`.
    """
    if path.suffix != ".onnx":
        return False
    from edgeprune.onnx_import import input_specs

    shape = input_specs(path)[0].shape
    return shape is not None and len(shape) == 4 and shape[3] == channels and shape[1] != channels

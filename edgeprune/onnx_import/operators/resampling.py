"""Resizing and sampling of space, in the modes that torch computes exactly."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeprune.onnx_import.registry import Call, operator

_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}
_REMEDY = "export it with mode nearest, or linear with half_pixel or align_corners"


@operator("Upsample", host=(1,))
def upsample(c: Call) -> Tensor:
    """The form of old files."""
    return _upsampled(c)


def _upsampled(c: Call) -> Tensor:
    x = c.tensor(0)
    scales = c.numbers(1, "scales") if c.has(1) else list(c.attribute("scales"))
    sizes = [_scaled(n, s) for n, s in zip(x.shape, scales)]
    return _resized(c, x, sizes, scales, "asymmetric", "floor")


@operator("Resize", host=(1, 2, 3))
def resize(c: Call) -> Tensor:
    """By scales or to sizes."""
    if c.opset < 11:
        return _upsampled(c)
    x = c.tensor(0)
    transform = c.attribute("coordinate_transformation_mode", "half_pixel")
    nearest = c.attribute("nearest_mode", "round_prefer_floor")
    axes = [a % x.dim() for a in c.attribute("axes", list(range(x.dim())))]
    sizes, scales = list(x.shape), [1.0] * x.dim()
    if c.has(3) and c.host(3, "sizes").array.size:
        for axis, size in zip(axes, _asked(c, x, axes)):
            sizes[axis], scales[axis] = size, size / x.shape[axis]
    else:
        for axis, scale in zip(axes, c.numbers(2, "scales")):
            sizes[axis], scales[axis] = _scaled(x.shape[axis], scale), scale
    return _resized(c, x, sizes, scales, transform, nearest)


def _asked(c: Call, x: Tensor, axes: list[int]) -> list[Any]:
    """The sizes that are asked for, or the largest or smallest of the same proportions."""
    asked, policy = c.numbers(3, "sizes"), c.attribute("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return asked
    choose = min if policy == "not_larger" else max
    scale = choose(size / x.shape[axis] for size, axis in zip(asked, axes))
    return [math.floor(x.shape[axis] * scale + 0.5) for axis in axes]


def _scaled(size: Any, scale: Any) -> Any:
    """A size after scaling; whole factors keep a symbol whole."""
    if isinstance(scale, float) and scale == int(scale):
        return size * int(scale)
    return math.floor(size * scale)


def _resized(
    c: Call, x: Tensor, sizes: list[Any], scales: list[Any], transform: str, nearest: str
) -> Tensor:
    if all(scale == 1.0 for scale in scales):
        return x
    if c.attribute("antialias", 0):
        c.fail(f"resizes with antialias, which torch computes otherwise; {_REMEDY}")
    mode = c.attribute("mode", "nearest")
    if mode == "nearest":
        return _nearest(c, x, sizes, scales, transform, nearest)
    return _interpolated(c, x, sizes, scales, transform, mode)


def _nearest(
    c: Call, x: Tensor, sizes: list[Any], scales: list[Any], transform: str, nearest: str
) -> Tensor:
    """torch's own where every entry is repeated a whole number of times, else by indices."""
    whole = all(s == int(s) for s in scales) and scales[:2] == [1.0, 1.0] and x.dim() in _LINEAR
    if whole and (transform, nearest) in _REPEATS:
        return F.interpolate(x, size=sizes[2:], mode="nearest")
    for dim, (size, scale) in enumerate(zip(sizes, scales)):
        if scale == 1.0:
            continue
        if not isinstance(size, int) or not isinstance(x.shape[dim], int):
            c.fail(f"resizes an open size by {transform} and {nearest}; fix the size, or {_REMEDY}")
        source = _coordinates(c, x.shape[dim], size, float(scale), transform)
        index = np.clip(_rounded(source, nearest), 0, x.shape[dim] - 1).astype(np.int64)
        x = x.index_select(dim, torch.from_numpy(index))
    return x


# Coordinates and roundings that repeat every entry where the factor is whole.
_REPEATS = {
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
    ("pytorch_half_pixel", "round_prefer_floor"),
    ("pytorch_half_pixel", "round_prefer_ceil"),
}


def _coordinates(c: Call, size: int, wanted: int, scale: float, transform: str) -> Any:
    """Where each output lies among the inputs."""
    place = np.arange(wanted, dtype=np.float64)
    if transform == "asymmetric":
        return place / scale
    if transform == "align_corners":
        return place * (size - 1) / (wanted - 1) if wanted > 1 else place * 0
    if transform in ("half_pixel", "pytorch_half_pixel"):
        single = transform == "pytorch_half_pixel" and wanted == 1
        return place * 0 if single else (place + 0.5) / scale - 0.5
    if transform == "half_pixel_symmetric":
        offset = size / 2 * (1 - wanted / (scale * size))
        return offset + (place + 0.5) / scale - 0.5
    return c.fail(f"resizes with {transform}, which torch does not have; {_REMEDY}")


def _rounded(source: Any, nearest: str) -> Any:
    rounding: dict[str, Callable[[Any], Any]] = {
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    return rounding[nearest](source)


def _interpolated(
    c: Call, x: Tensor, sizes: list[Any], scales: list[Any], transform: str, mode: str
) -> Tensor:
    """Linear and cubic interpolation with coordinates that torch has."""
    aligned = transform == "align_corners"
    whole = all(scale == size / n for scale, size, n in zip(scales, sizes, x.shape))
    known = transform == "half_pixel" or (aligned and whole)
    known = known or (transform == "pytorch_half_pixel" and all(n != 1 for n in sizes[2:]))
    if not known or x.dim() not in _LINEAR or scales[:2] != [1.0, 1.0]:
        c.fail(f"resizes by {mode} with {transform}, which torch does not have; {_REMEDY}")
    if mode == "cubic":
        coefficient = c.attribute("cubic_coeff_a", -0.75)
        if x.dim() != 4 or coefficient != -0.75 or c.attribute("exclude_outside", 0):
            c.fail(f"resizes by a cubic that torch does not have; {_REMEDY}")
    name = "bicubic" if mode == "cubic" else _LINEAR[x.dim()]
    if whole:
        return F.interpolate(x, size=sizes[2:], mode=name, align_corners=aligned)
    return F.interpolate(x, scale_factor=scales[2:], mode=name, align_corners=aligned)


@operator("GridSample")
def grid_sample(c: Call) -> Tensor:
    """Values at given points."""
    x, grid = c.tensor(0), c.tensor(1)
    modes = {"linear": "bilinear", "cubic": "bicubic"}
    mode = c.attribute("mode", "bilinear" if c.opset < 20 else "linear")
    return F.grid_sample(
        x,
        grid,
        mode=modes.get(mode, mode),
        padding_mode=c.attribute("padding_mode", "zeros"),
        align_corners=bool(c.attribute("align_corners", 0)),
    )


@operator("AffineGrid", host=(1,))
def affine_grid(c: Call) -> Tensor:
    """The points that a map gives."""
    sizes = c.numbers(1, "sizes")
    return F.affine_grid(c.tensor(0), sizes, align_corners=bool(c.attribute("align_corners", 0)))

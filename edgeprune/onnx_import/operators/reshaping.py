"""Other shapes of the same entries."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from edgeprune.onnx_import.registry import Call, operator


@operator("Reshape", host=(1,))
def reshape(c: Call) -> Tensor:
    """To a shape in which 0 keeps a size and -1 takes what is left."""
    x, wanted = c.tensor(0), c.numbers(1, "shape")
    if not c.attribute("allowzero", 0):
        wanted = [x.shape[d] if isinstance(n, int) and n == 0 else n for d, n in enumerate(wanted)]
    return x.reshape(_resolved(x, wanted))


def _resolved(x: Tensor, wanted: list[Any]) -> list[Any]:
    """Without -1 where it only stands for a size that is known: a view then needs no division."""
    if wanted.count(-1) != 1 or len(wanted) != x.dim():
        return wanted
    place = wanted.index(-1)
    same = all(n is s or (isinstance(n, int) and isinstance(s, int) and n == s)
               for d, (n, s) in enumerate(zip(wanted, x.shape)) if d != place)  # fmt: skip
    return list(x.shape) if same else wanted


@operator("Flatten")
def flatten(c: Call) -> Tensor:
    """To a matrix."""
    x, axis = c.tensor(0), c.attribute("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    if axis == 0:
        return x.reshape(1, -1)
    if axis == 1:
        return x.flatten(1) if x.dim() > 1 else x.unsqueeze(1)
    lead = x.flatten(0, axis - 1)
    return lead.flatten(1) if lead.dim() > 1 else lead.unsqueeze(1)


@operator("Transpose")
def transpose(c: Call) -> Tensor:
    """Dimensions in another order, backwards by default."""
    x = c.tensor(0)
    return x.permute(c.attribute("perm", list(range(x.dim()))[::-1]))


@operator("Squeeze", host=(1,))
def squeeze(c: Call) -> Tensor:
    """Without dimensions of size 1."""
    x = c.tensor(0)
    axes = c.numbers(1, "axes") if c.has(1) else c.attribute("axes")
    if axes is None:
        return x.squeeze()
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.squeeze(axis)
    return x


@operator("Unsqueeze", host=(1,))
def unsqueeze(c: Call) -> Tensor:
    """With dimensions of size 1, counted in the result."""
    x = c.tensor(0)
    axes = c.numbers(1, "axes") if c.has(1) else c.attribute("axes")
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Expand", host=(1,))
def expand(c: Call) -> Tensor:
    """Broadcast with a shape, either of which may be the larger."""
    x, wanted = c.tensor(0), c.numbers(1, "shape")
    rank = max(x.dim(), len(wanted))
    own = [1] * (rank - x.dim()) + list(x.shape)
    asked = [1] * (rank - len(wanted)) + wanted
    return x.expand([a if _is_one(s) else s for s, a in zip(own, asked)])


def _is_one(size: Any) -> bool:
    """Whether a size is 1; an open size is never taken for it."""
    return isinstance(size, int) and size == 1


@operator("Tile", host=(1,))
def tile(c: Call) -> Tensor:
    """Copies along each dimension."""
    return c.tensor(0).repeat(c.numbers(1, "number of copies"))


@operator("DepthToSpace")
def depth_to_space(c: Call) -> Tensor:
    """Channels become positions; torch's own where channels vary slowest."""
    x, size = c.tensor(0), c.attribute("blocksize")
    if c.attribute("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, size)
    n, channels, height, width = x.shape
    split = x.reshape(n, size, size, channels // size**2, height, width)
    moved = split.permute(0, 3, 4, 1, 5, 2)
    return moved.reshape(n, channels // size**2, height * size, width * size)


@operator("SpaceToDepth")
def space_to_depth(c: Call) -> Tensor:
    """Positions become channels."""
    x, size = c.tensor(0), c.attribute("blocksize")
    n, channels, height, width = x.shape
    split = x.reshape(n, channels, height // size, size, width // size, size)
    by_channel = c.attribute("mode", "DCR") == "CRD"
    moved = split.permute(0, 1, 3, 5, 2, 4) if by_channel else split.permute(0, 3, 5, 1, 2, 4)
    return moved.reshape(n, channels * size**2, height // size, width // size)

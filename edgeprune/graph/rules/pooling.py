"""Pooling and resampling over space: a channel's positions go together."""

from typing import TYPE_CHECKING

from torch.fx import Node

from edgeprune.graph.ops import op_name
from edgeprune.graph.planes import Planes
from edgeprune.graph.rules.registry import labels

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Value

_POOLS = (
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "upsample_nearest1d",
    "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d",
    "upsample_bicubic2d", "upsample_trilinear3d", "_upsample_nearest_exact2d",
    "_upsample_bilinear2d_aa",
)  # fmt: skip
_WITH_INDICES = (
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "max_pool2d_with_indices",
    "max_pool1d_with_indices", "max_pool3d_with_indices",
)  # fmt: skip


def _space(name: str, rank: int) -> list[int]:
    for count in (1, 2, 3):
        if f"{count}d" in name:
            return list(range(rank - count, rank))
    return []


@labels(*_POOLS)
def label_pool(c: "Coupling", node: Node) -> "Value":
    """Tied over space."""
    x, shape = c.planes(node.args[0]), c.shape(node)
    return _over_space(c, x, op_name(node), shape)


def _over_space(c: "Coupling", x: Planes, name: str, shape: tuple[int, ...]) -> Planes:
    space = _space(name, len(x.shape))
    kept = c.alike(x, space, "positions are pooled")
    return Planes(shape, tuple(part.map(lambda labels_: labels_.expand(shape)) for part in kept))


@labels(*_WITH_INDICES)
def label_pool_with_indices(c: "Coupling", node: Node) -> "Value":
    """The same for the values and their positions."""
    x = c.planes(node.args[0])
    first, second = (tuple(value.shape) for value in node.meta["val"])
    name = op_name(node)
    return (
        _over_space(c, x, name, first),
        _over_space(c, x, name, second).without_zeros(),
    )


@labels("grid_sampler")
def label_grid(c: "Coupling", node: Node) -> "Value":
    """Samples space at given points; the points stay."""
    c.freeze_planes(c.planes(node.args[1]), "sampling points stay")
    x, shape = c.planes(node.args[0]), c.shape(node)
    space = list(range(2, len(shape)))
    kept = c.alike(x, space, "space is sampled")
    return Planes(shape, tuple(part.map(lambda labels_: labels_.expand(shape)) for part in kept))

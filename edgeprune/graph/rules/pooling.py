"""Pooling and resampling over space: a channel's positions go together."""

from typing import TYPE_CHECKING, Any

from torch.fx import Node

from edgeprune.graph.ops import op_name
from edgeprune.graph.rules.registry import labels

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling

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
def label_pool(c: "Coupling", node: Node) -> Any:
    """Tied over space."""
    x = c.labels(node.args[0])
    return c.tie(x, _space(op_name(node), x.dim())).expand(c.shape(node))


@labels(*_WITH_INDICES)
def label_pool_with_indices(c: "Coupling", node: Node) -> Any:
    """The same for the values and their positions."""
    x = c.labels(node.args[0])
    tied = c.tie(x, _space(op_name(node), x.dim()))
    return tuple(tied.expand(value.shape) for value in node.meta["val"])


@labels("grid_sampler")
def label_grid(c: "Coupling", node: Node) -> Any:
    """Samples space at given points; the points stay."""
    x = c.labels(node.args[0])
    c.freeze(c.labels(node.args[1]), "sampling points stay")
    return c.tie(x, list(range(2, x.dim()))).expand(c.shape(node))

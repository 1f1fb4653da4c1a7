"""How often every expert is chosen."""

from typing import TYPE_CHECKING

from torch.fx import Node

from edgeprune.graph.planes import Plane, Planes
from edgeprune.graph.rules.registry import Call, labels, rewrites

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Value
    from edgeprune.graph.shrinker import Shrinker


@labels("histc")
def label_histogram(c: "Coupling", node: Node) -> "Value | None":
    """A bin for each expert: nobody chooses one that is gone. Other histograms have no rule."""
    experts = c.experts(node)
    if experts is None:
        return None
    return Planes(c.shape(node), (Plane(experts),))


@rewrites("histc")
def shrink_histogram(s: "Shrinker", node: Node) -> Call:
    """A bin for each number of those that are left."""
    if s.kept(node, 0) is None:
        return Call.of(node)
    bins = s.new_size(node, 0)
    # Bounds of 0 and 0 would mean those of the data.
    return Call(node.target, (node.args[0], bins, 0, max(1, bins - 1)), {})

"""Attention that keeps its heads and narrows each: which products of a graph that concerns."""

from collections.abc import Collection

from torch.fx import Node

from edgeprune.graph.coupling import Coupling
from edgeprune.graph.labels import strip
from edgeprune.graph.layout import Layout, Units


def products_of(coupling: Coupling, layout: Layout, names: Collection[str]) -> set[str]:
    """Products over the heads of these structures."""
    found = set()
    for node in coupling.heads_at:
        dims = [d for tensor in (node, *node.all_input_nodes) for d in _dims(layout, tensor)]
        if any(name in names for d in dims for name in layout.structures_in(d)):
            found.add(node.name)
    return found


def _dims(layout: Layout, node: Node) -> list[Units | None]:
    return [d for tensor in layout.values.get(node, ()) for d in tensor]


def products_with_frozen_heads(coupling: Coupling) -> set[str]:
    """Products whose heads have weights and cannot be removed."""
    sets = coupling.sets
    return {
        node.name
        for node, labels in coupling.heads_at.items()
        if sets.level(strip(labels).numpy()) < 0 and sets.anchored(strip(labels).numpy())
    }

"""Structures with their slots, from a layout."""

from collections.abc import Collection

from edgeprune.graph.coupling import Coupling
from edgeprune.graph.layout import Layout
from edgeprune.graph.structure import Slot, Structure


def build_structures(
    coupling: Coupling, layout: Layout, kinds: dict[str, str], removable: Collection[str]
) -> dict[str, Structure]:
    """All structures in graph order, each slot in the order in which layers use it."""
    position = {node.name: i for i, node in enumerate(coupling.graph.nodes)}
    readers = _readers(coupling)
    slots: dict[str, list[Slot]] = {name: [] for name in layout.offsets}
    for tensor, dims in layout.parameters.items():
        for dim, units in enumerate(dims):
            for name in layout.structures_in(units):
                assert units is not None
                own = layout.numbered(name, units).reshape(-1, units.shape[-1]).max(0)
                use = coupling.uses.get((tensor, dim))
                role = use.role if use is not None else "vector"
                layer = use.layer if use is not None else readers[tensor]
                slots[name].append(Slot(tensor, dim, own, role, layer))
    return {
        name: Structure(
            name=name,
            kind=kinds[name],
            units=layout.units[name],
            slots=tuple(sorted(slots[name], key=lambda s: (position[s.layer], s.dim))),
            removable=name in removable,
            minimum=layout.minimum.get(name, 0),
        )
        for name in layout.offsets
    }


def _readers(coupling: Coupling) -> dict[str, str]:
    """The first operator that reads each parameter."""
    readers: dict[str, str] = {}
    for node in coupling.graph.nodes:
        if node.op == "get_attr":
            readers[str(node.target)] = next(iter(node.users)).name
    return readers

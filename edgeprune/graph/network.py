"""A captured network with its prunable structures, and what every level does to its shapes."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor, fx
from torch.fx import Node

from edgeprune.errors import StructureError
from edgeprune.graph.capture import Captured
from edgeprune.graph.coupling import Coupling
from edgeprune.graph.extraction import extract_layout
from edgeprune.graph.freezing import frozen_parameters, renormalised_nodes
from edgeprune.graph.head_width import (
    products_of,
    products_with_frozen_heads,
    widths_beside,
    with_widths,
)
from edgeprune.graph.layout import Layout
from edgeprune.graph.ops import output_shapes
from edgeprune.graph.shrinker import Shrinker
from edgeprune.graph.slots import build_structures
from edgeprune.graph.structure import Frozen, Structure, SymbolicDim
from edgeprune.graph.summary import Summary, summarise
from edgeprune.graph.validation import invalid_structures, removable_structures
from edgeprune.suggest import suggestion

Keep = Mapping[str, Sequence[int]]
Positions = npt.NDArray[np.int64]
_MAX_REPAIRS = 8


class Network:
    """What can be removed from a captured network, and the network without it.

    Attributes:
        captured: The network.
        layout: Where each unit of each structure lies.
        structures: By name what can be removed.
        frozen: What cannot, and why.
        renormalised: Normalisations whose statistics run over what is left.
        run_without: By structure that may go as a whole the nodes that compute something of the
            inputs even so.
    """

    def __init__(
        self,
        coupling: Coupling,
        layout: Layout,
        kinds: dict[str, str],
        removable: Mapping[str, frozenset[str]],
    ) -> None:
        self.captured: Captured = coupling.captured
        self.layout = layout
        self._coupling = coupling
        self._nodes = {node.name: node for node in coupling.graph.nodes}
        self.run_without = removable
        self.structures: dict[str, Structure] = build_structures(coupling, layout, kinds, removable)
        self.frozen: tuple[Frozen, ...] = frozen_parameters(coupling)
        self.renormalised: tuple[str, ...] = renormalised_nodes(coupling, layout)
        self._structures_of: dict[str, tuple[str, ...]] = {}

    def _node(self, name: str) -> Node:
        if name not in self._nodes:
            raise StructureError(f"the captured graph has no node {name!r}")
        node: Node = self._nodes[name]
        return node

    def shapes(self, node_name: str) -> tuple[tuple[SymbolicDim, ...], ...]:
        """Per output tensor of a node the sizes as functions of the levels, at the example shapes.

        Raises:
            StructureError: There is no such node.
        """
        node = self._node(node_name)
        if node.op == "get_attr":
            return (self.param_shape(str(node.target)),)
        found = self.layout.values.get(node)
        return tuple(
            tuple(
                self.layout.symbolic(found[i][d] if found is not None else None, size)
                for d, size in enumerate(shape)
            )
            for i, shape in enumerate(output_shapes(node))
        )

    def param_shape(self, fqn: str) -> tuple[SymbolicDim, ...]:
        """Sizes of a parameter or buffer as functions of the levels."""
        value = self._tensor(fqn)
        dims = self.layout.parameters.get(fqn) or (None,) * value.dim()
        return tuple(
            self.layout.symbolic(units, size) for units, size in zip(dims, value.shape, strict=True)
        )

    def _tensor(self, fqn: str) -> Tensor:
        value = self.captured.module.state_dict(keep_vars=True).get(fqn)
        if not isinstance(value, Tensor):
            raise StructureError(f"the captured module has no parameter or buffer {fqn!r}")
        return value

    def structures_of(self, node_name: str) -> tuple[str, ...]:
        """Structures whose level changes the input, weight or output shape of a node."""
        if node_name not in self._structures_of:
            node = self._node(node_name)
            found: set[str] = set()
            for part in (node, *node.all_input_nodes):
                dims = self.layout.values.get(part, ())
                for units in (d for tensor in dims for d in tensor):
                    found.update(self.layout.structures_in(units))
                if part.op == "get_attr":
                    for units in self.layout.parameters.get(str(part.target), ()):
                        found.update(self.layout.structures_in(units))
            self._structures_of[node_name] = tuple(n for n in self.layout.offsets if n in found)
        return self._structures_of[node_name]

    def shrink(self, keep: Keep, state: Mapping[str, Tensor] | None = None) -> fx.GraphModule:
        """The network with only the given units of each structure (absent: all of them).

        The result owns its parameters; nodes and parameters keep their names. ``state`` gives
        full-size tensors to use instead of the captured ones. An empty selection takes out
        what consumes the structure but for its bias.

        Raises:
            StructureError: An unknown structure or unit, or nothing left where something must be.
        """
        stays = self.stays(keep)
        return Shrinker(self.captured, self.layout, self._coupling.constants, stays).run(state)

    def survivors(self, fqn: str, keep: Keep) -> tuple[Positions, ...]:
        """Per dimension of a parameter or buffer the positions that stay.

        Raises:
            StructureError: An unknown tensor, structure or unit.
        """
        shape, stays = self._tensor(fqn).shape, self.stays(keep)
        dims = self.layout.parameters.get(fqn) or (None,) * len(shape)
        return tuple(
            np.arange(size) if units is None else np.flatnonzero(self.layout.staying(units, stays))
            for units, size in zip(dims, shape, strict=True)
        )

    def summary(self) -> Summary:
        """What is prunable, what is not, and which operators at which lines say so."""
        state = self.captured.module.state_dict(keep_vars=True)
        used = dict.fromkeys(name for name, _ in self._coupling.uses)
        layers = {name: state[name].numel() for name in used if state[name].dim() >= 2}
        return summarise(self.structures, self.frozen, layers, self.renormalised)

    def with_head_width(self, names: Collection[str]) -> "Network":
        """The same network, in which these structures of heads may lose width in every head, too.

        Raises:
            StructureError: A name is not one of a structure of heads, or not both can be removed.
        """
        heads = [name for name, structure in self.structures.items() if structure.kind == "heads"]
        for name in names:
            if name not in heads:
                hint = suggestion(name, heads)
                raise StructureError(f"there is no structure of heads '{name}'; {hint}")
        known = self._coupling
        narrow = known.narrow | products_of(known, self.layout, names)
        other = _found(self.captured, known.frozen_on_request, narrow)
        layout = with_widths(self.layout, names, other.layout)
        if wrong := invalid_structures(self.captured, layout, known.constants):
            name, (_, reason) = next(iter(wrong.items()))
            raise StructureError(f"{name} cannot be narrowed as well as removed: {reason}")
        kinds = {n: s.kind for n, s in {**other.structures, **self.structures}.items()}
        removable = removable_structures(self.captured, layout, known.constants)
        # Heads of no width are no heads, which their own structure says already.
        twice = widths_beside(layout, set(names) & removable.keys())
        once = {name: run for name, run in removable.items() if name not in twice}
        return Network(known, layout, kinds, once)

    def stays(self, keep: Keep) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """Over all units of all structures, whether each stays."""
        total = sum(self.layout.units.values())
        stays = np.ones(total, bool)
        for name, units in keep.items():
            if name not in self.structures:
                hint = suggestion(name, self.structures)
                raise StructureError(f"there is no structure '{name}'; {hint}")
            start, count = self.layout.offsets[name], self.layout.units[name]
            chosen = np.asarray(list(units), np.int64)
            if chosen.size and (chosen.min() < 0 or chosen.max() >= count):
                raise StructureError(f"{name} has units 0 to {count - 1}, not {chosen.tolist()}")
            if not chosen.size and not self.structures[name].removable:
                raise StructureError(f"{name} cannot be emptied; keep at least one unit")
            stays[start : start + count] = False
            stays[start + chosen] = True
            left, least = int(stays[start : start + count].sum()), self.structures[name].minimum
            if left < least:
                raise StructureError(
                    f"{name} cannot keep {left}: {least} are chosen at a time; keep as many"
                )
        return stays


def analyse(captured: Captured, *, freeze: Collection[str] = ()) -> Network:
    """Find the coupled structures of a captured network.

    ``freeze`` names parameters that must keep their shape. Structures whose rewriting would give
    other shapes than predicted are frozen, too, and reported. Where heads cannot be removed, what
    each is wide can, if that is more.
    """
    network = _found(captured, freeze, frozenset())
    narrow = products_with_frozen_heads(network._coupling)
    if narrow:
        other = _found(captured, freeze, narrow)
        if _frozen_positions(other) < _frozen_positions(network):
            return other
    return network


def _frozen_positions(network: Network) -> int:
    return sum(entry.positions for entry in network.frozen)


def _found(captured: Captured, freeze: Collection[str], narrow: Collection[str]) -> Network:
    coupling = Coupling(captured, freeze, narrow)
    coupling.propagate()
    _freeze_what_fails(coupling)
    layout, _ = extract_layout(coupling)
    removable = removable_structures(captured, layout, coupling.constants)
    single = [n for n, units in layout.units.items() if units == 1 and n not in removable]
    for name in single:
        coupling.freeze_units(layout, name, None, "a single unit that must stay")
    layout, kinds = extract_layout(coupling)
    if single:
        removable = removable_structures(captured, layout, coupling.constants)
    return Network(coupling, layout, kinds, removable)


def _freeze_what_fails(coupling: Coupling) -> None:
    """Freeze structures whose rewriting fails or gives other shapes than predicted."""
    for _ in range(_MAX_REPAIRS):
        layout, _ = extract_layout(coupling)
        wrong = invalid_structures(coupling.captured, layout, coupling.constants)
        if not wrong:
            return
        for name, (node, reason) in wrong.items():
            coupling.freeze_units(layout, name, node, reason)
        coupling.propagate()
    coupling.freeze_everything("rewriting gives other shapes than predicted")

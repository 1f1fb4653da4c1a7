"""Propagate labels over a captured graph until nothing changes.

Certain ties come first. Where an operand is broadcast over labels, it is not yet known whether it
is data that merely goes along, so those places wait until all certain ties are made; freezes are
made last, and each knows the node it came from.
"""

import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.capture import Captured
from edgeprune.graph.constants import fold_constants, written_constants
from edgeprune.graph.expert_choice import expert_choices
from edgeprune.graph.labels import (
    CONSTANT,
    ELEMENT,
    FEATURE,
    LabelSets,
    frozen_labels,
    narrowed,
    strip,
    varying_dims,
)
from edgeprune.graph.layout import Layout
from edgeprune.graph.ops import argument, hint, is_mutable, op_name, output_shapes, tensor_shape
from edgeprune.graph.planes import Plane, Planes, laid_out, spans
from edgeprune.graph.rules import LABEL_RULES
from edgeprune.graph.running import first_line
from edgeprune.graph.structure import Role

_MAX_ROUNDS = 6

Value = Planes | tuple[Planes, ...]


@dataclass(frozen=True)
class Cause:
    """Why labels were frozen."""

    node: str
    operator: str
    source: str
    reason: str


@dataclass(frozen=True)
class Use:
    """How a layer uses one dimension of a parameter."""

    role: Role
    layer: str


class Coupling:
    """Labels of every value and parameter of a captured graph.

    Rules read planes with :meth:`planes` and :meth:`axes`, relate labels with :meth:`tie`,
    :meth:`union` and :meth:`freeze`, and return the planes of their result.
    """

    def __init__(
        self, captured: Captured, freeze: Collection[str] = (), narrow: Collection[str] = ()
    ) -> None:
        self.captured = captured
        self.graph = captured.module.graph
        self.sets = LabelSets()
        self.values: dict[Node, Value] = {}
        self.parameters: dict[str, tuple[Tensor | None, ...]] = {}
        """By parameter the labels along each dimension, None where it has size 1."""
        self.uses: dict[tuple[str, int], Use] = {}
        self.causes: list[Cause] = [
            Cause("", "", "", "not part of any structure"),
            Cause("", "", "", "input data"),
        ]
        self.renormalised: dict[Node, None] = {}
        """Normalisations whose statistics run over features, in graph order."""
        self.states: dict[Node, Tensor] = {
            node: operator.attrgetter(str(node.target))(captured.module).detach()
            for node in self.graph.nodes
            if node.op == "get_attr"
        }
        self.stored = _stored(self.graph, self.states)
        self._written = written_constants(self.graph)
        self.constants, self.impure = fold_constants(self.graph, self.states)
        self.resolving = False
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._owners: list[tuple[str, int]] = []
        self._settled: set[Node] = set()
        self._cause_of: dict[tuple[str, str], int] = {}
        self._node: Node | None = None
        self.frozen_on_request = frozenset(freeze)
        self.narrow = frozenset(narrow)
        self.expert_choices = expert_choices(self.graph)
        self._choice_of = {n: c for c in self.expert_choices for n in c.concerned}
        self.heads_at: dict[Node, Tensor] = {}
        """By product of two values what differed from head to head when first seen."""

    # -- what rules read

    def shape(self, node: Node) -> tuple[int, ...]:
        """Shape of a node's tensor at the example inputs.

        What values chose none of there counts as one, so that there are labels to follow.
        """
        shape = tensor_shape(node)
        if 0 not in shape or "dynamic" not in node.meta:
            return shape
        sizes = zip(shape, node.meta["dynamic"], strict=True)
        return tuple(1 if size == 0 and origin else size for size, origin in sizes)

    def argument(self, node: Node, index: int, name: str = "", default: Any = None) -> Any:
        """An argument with node-valued numbers replaced by their hints; tensors stay nodes."""
        value = argument(node, index, name, default)
        return _hint_numbers(value)

    def is_parameter(self, value: Any) -> bool:
        """Whether an argument is a floating-point parameter or buffer itself."""
        return value in self.states and self.states[value].is_floating_point()

    def constant(self, value: Any) -> Tensor | None:
        """The value of a node that depends on no input and no floating-point parameter."""
        found = self.constants.get(value)
        return found if isinstance(found, Tensor) else None

    def planes(self, node: Any) -> Planes:
        """What can be removed of a node's single tensor."""
        if node in self.values:
            value = self.values[node]
            assert isinstance(value, Planes)
            return value
        shape = self.shape(node)
        if self.is_parameter(node):
            return laid_out(self.parameter(node), shape)
        constant = self.constant(node)
        if constant is not None and node not in self._settled and self._is_data(node, constant):
            found = laid_out(self._fresh(shape, f"constant {node.name}", CONSTANT), shape)
            self.values[node] = found
            return found
        return Planes(shape)

    def _fresh(self, shape: Sequence[int], origin: str, level: int) -> tuple[Tensor | None, ...]:
        """New labels along each dimension, None where it has size 1."""
        return tuple(
            self.sets.fresh(size, f"{origin}:{dim}", level) if size > 1 else None
            for dim, size in enumerate(shape)
        )

    def parameter(self, node: Node) -> tuple[Tensor | None, ...]:
        """Labels along each dimension of a parameter, None where it has size 1."""
        name = str(node.target)
        if name not in self.parameters:
            self.parameters[name] = self._fresh(self.states[node].shape, name, ELEMENT)
            for dim, vector in enumerate(self.parameters[name]):
                if vector is not None:
                    self._starts.append(int(vector[0]))
                    self._ends.append(int(vector[0]) + len(vector))
                    self._owners.append((name, dim))
            if name in self.frozen_on_request:
                self._freeze_user(name)
        return self.parameters[name]

    def labels_along(self, parameter: str, dim: int) -> Tensor | None:
        """Labels along one dimension of a parameter that some rule has read, None for size 1."""
        return self.parameters[parameter][dim] if parameter in self.parameters else None

    def axes(self, node: Any) -> list[Tensor]:
        """Labels along each dimension of a weight: a parameter, or what was computed of some.

        Dimensions that cannot shrink have label 0.
        """
        planes = self.planes(node)
        found: dict[int, Tensor] = {}
        for part in planes.parts:
            dims = self.varying(part.labels) or spans(part.labels)
            if len(dims) == 1 and dims[0] not in found:
                others = [d for d in range(len(planes.shape)) if d != dims[0]]
                found[dims[0]] = narrowed(part.labels, others).reshape(-1)
            else:
                self.freeze(part.labels, "a weight's dimensions cannot be told apart")
        return [
            found[d] if d in found else frozen_labels((size,))
            for d, size in enumerate(planes.shape)
        ]

    def experts(self, node: Node) -> Tensor | None:
        """Labels of the experts that an operator has a part in choosing, if that is understood."""
        choice = self._choice_of.get(node)
        return None if choice is None else self.axes(choice.router.args[1])[0]

    def _is_data(self, node: Node, constant: Tensor) -> bool:
        """Whether entries of a constant may be removed along with what they belong to."""
        kind = constant.is_floating_point() or constant.dtype == torch.bool
        return kind and "dynamic" not in node.meta and node not in self._written

    # -- what rules state

    def cause(self, reason: str) -> int:
        """The number of the current node as a cause with this reason."""
        name = self._node.name if self._node is not None else ""
        key = (name, reason)
        if key not in self._cause_of:
            source = self._node.meta.get("source", "") if self._node is not None else ""
            kind = op_name(self._node) if self._node is not None else ""
            self.causes.append(Cause(name, kind, source, reason))
            self._cause_of[key] = len(self.causes) - 1
        return self._cause_of[key]

    def union(self, first: Tensor, second: Tensor, reason: str = "meets frozen data") -> None:
        """Tie two label tensors elementwise, under broadcasting."""
        a, b = torch.broadcast_tensors(first, second)  # type: ignore[no-untyped-call]
        self.sets.union(a.numpy(), b.numpy(), self.cause(reason))

    def tie(self, labels: Tensor, dims: Sequence[int]) -> Tensor:
        """Make labels constant along dimensions, which come back with size 1."""
        return self.sets.tie(labels, dims, self.cause("positions are computed with alike"))

    def alike(self, planes: Planes, dims: Sequence[int], reason: str) -> list[Plane]:
        """Planes made constant along dimensions; those that lie along these alone are frozen."""
        kept = []
        for part in planes.parts:
            along = self.varying(part.labels)
            if along and set(along) <= set(dims):
                self.freeze(part.labels, reason)
            else:
                kept.append(Plane(self.tie(part.labels, dims), part.zero))
        return kept

    def freeze(self, labels: Tensor, reason: str) -> None:
        """Forbid the removal of everything in these labels (once certain ties are made)."""
        if self.resolving:
            self.freeze_now(labels, reason)

    def freeze_now(self, labels: Tensor, reason: str) -> None:
        """The same as a certain fact, which need not wait for any tie."""
        self.sets.freeze(strip(labels).numpy(), self.cause(reason))

    def freeze_planes(self, planes: Planes, reason: str) -> None:
        """The same for everything in a value."""
        for part in planes.parts:
            self.freeze(part.labels, reason)

    def _freeze_user(self, name: str) -> None:
        self._node, node = None, self._node
        cause = self.cause(f"{name} is frozen on request")
        self._node = node
        for vector in self.parameters[name]:
            if vector is not None:
                self.sets.freeze(vector.numpy(), cause)

    def narrows_heads(self) -> bool:
        """Whether the current product keeps all its heads, and what each is wide may shrink."""
        return self._node is not None and self._node.name in self.narrow

    def heads(self, labels: Tensor) -> None:
        """These labels differ from one head of the current product to the next."""
        if self._node is not None:
            self.heads_at.setdefault(self._node, labels)

    def feature(self, labels: Tensor) -> None:
        """These labels have rows or columns of a layer's weight."""
        self.sets.anchor(strip(labels).numpy())

    def use(self, labels: Tensor, role: Role, layer: Node) -> None:
        """Record that a layer produces features by these labels of a weight, or consumes them."""
        self.feature(labels)
        found = np.unique(strip(labels).numpy())
        place = np.searchsorted(self._starts, found, side="right") - 1
        inside = (found > 0) & (place >= 0) & (found < np.array([0, *self._ends])[place + 1])
        for owner in np.unique(place[inside]).tolist():
            self.uses.setdefault(self._owners[owner], Use(role, layer.name))

    def use_vector(self, node: Any, layer: Node) -> None:
        """Record that a parameter goes along with a layer."""
        if self.is_parameter(node):
            for dim in range(self.states[node].dim()):
                self.uses.setdefault((str(node.target), dim), Use("vector", layer.name))

    def varies(self, labels: Tensor, dims: Sequence[int]) -> bool:
        """Whether labels differ along any of these dimensions."""
        return self.sets.varies(labels, dims)

    def varying(self, labels: Tensor) -> list[int]:
        """The dimensions along which labels differ."""
        return varying_dims(self.sets.classes(labels))

    def same(self, first: Tensor, second: Tensor) -> bool:
        """Whether two label tensors of one shape hold the same classes everywhere."""
        a, b = torch.broadcast_tensors(self.sets.classes(first), self.sets.classes(second))  # type: ignore[no-untyped-call]
        return bool((a == b).all())

    def level(self, labels: Tensor) -> int:
        """The highest level of a label tensor, -1 if all of it is frozen."""
        return self.sets.level(strip(labels).numpy())

    def is_plain(self, labels: Tensor) -> bool:
        """Whether only entries of parameters and constants are in it, no feature yet."""
        return CONSTANT <= self.level(labels) < FEATURE

    def count(self, labels: Tensor) -> int:
        """How many different classes there are."""
        return len(np.unique(self.sets.classes(labels).numpy()))

    # -- propagation

    def propagate(self) -> None:
        """Run every rule until no tie and no freeze is added."""
        from edgeprune.graph.box import tie_to_boxes

        self._sweep()
        self.resolving = True
        self._settle_constants()
        for _ in range(_MAX_ROUNDS):
            before = self.sets.changes
            self._sweep()
            tie_to_boxes(self)
            if self.sets.changes == before:
                return
        self.freeze_everything("the ties of this network do not settle")

    def _sweep(self) -> None:
        self.values = {n: v for n, v in self.values.items() if n in self.constants}
        self.renormalised.clear()
        for node in self.graph.nodes:
            self._node = node
            if node.op == "call_function" and node not in self.constants:
                self.values[node] = self._tidy(self._apply(node))
            elif node.op == "output":
                for source in node.all_input_nodes:
                    self._freeze_value(source, "the network's outputs keep their shape")
        self._node = None

    def _apply(self, node: Node) -> Value:
        if node in self.impure or is_mutable(node):
            return self._opaque(node, "writes into a tensor that is read elsewhere")
        rule = LABEL_RULES.get(op_name(node))
        try:
            result = rule(self, node) if rule is not None else None
        except (RuntimeError, IndexError, ValueError) as error:
            # Sizes that depend on values are whatever they were in the example: none, say.
            return self._opaque(node, f"cannot be followed ({first_line(error)})")
        return self._opaque(node, "operator without a rule") if result is None else result

    def _tidy(self, value: Value) -> Value:
        """Without planes of which everything is frozen, and each plane once."""
        if isinstance(value, tuple):
            return tuple(self._tidy_planes(planes) for planes in value)
        return self._tidy_planes(value)

    def _tidy_planes(self, planes: Planes) -> Planes:
        kept: list[Plane] = []
        for part in planes.parts:
            level = self.level(part.labels)
            if level < FEATURE and not self.varying(part.labels):
                self.freeze(part.labels, "one entry of data serves many")
                continue
            if not any(self.same(part.labels, other.labels) for other in kept):
                kept.append(part)
        return Planes(planes.shape, tuple(kept))

    def _opaque(self, node: Node, reason: str) -> Value:
        """Freeze what an operator touches."""
        for source in node.all_input_nodes:
            self._freeze_value(source, reason)
        shapes = [Planes(shape) for shape in output_shapes(node)]
        many = isinstance(node.meta.get("val"), tuple | list)
        return tuple(shapes) if many else (shapes[0] if shapes else Planes(()))

    def _freeze_value(self, node: Node, reason: str) -> None:
        if not isinstance(node.meta.get("val"), torch.Tensor | tuple | list):
            return
        value = self.values.get(node)
        if value is None:
            value = self.planes(node) if isinstance(node.meta["val"], Tensor) else ()
        for planes in value if isinstance(value, tuple) else (value,):
            self.freeze_planes(planes, reason)

    def _settle_constants(self) -> None:
        """Constants that met no structure are plain data from now on."""
        for node, planes in list(self.values.items()):
            if node in self.constants and isinstance(planes, Planes):
                kept = [part for part in planes.parts if self.level(part.labels) >= FEATURE]
                self.values[node] = Planes(planes.shape, tuple(kept))
                self._settled.add(node)

    def freeze_units(self, layout: Layout, name: str, node: Node | None, reason: str) -> None:
        """Freeze one structure of a layout that was taken from this coupling."""
        self._node = node
        cause = self.cause(reason)
        for parameter, dims in layout.parameters.items():
            for labels, units in zip(self.parameters[parameter], dims, strict=True):
                if units is not None and labels is not None:
                    self.sets.freeze(labels.numpy()[layout.numbered(name, units) >= 0], cause)
        self._node = None

    def freeze_everything(self, reason: str) -> None:
        """Nothing can be pruned."""
        for labels in self.parameters.values():
            for vector in labels:
                if vector is not None:
                    self.freeze(vector, reason)


def _stored(graph: torch.fx.Graph, states: dict[Node, Tensor]) -> set[Node]:
    """Parameters, and what is computed of nothing but parameters and constants."""
    found: set[Node] = set()
    given: set[Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(source in given for source in node.all_input_nodes):
            given.add(node)
        elif (node in states and states[node].is_floating_point()) or any(
            source in found for source in node.all_input_nodes
        ):
            found.add(node)
    return found


def _hint_numbers(value: Any) -> Any:
    if isinstance(value, Node):
        return value if isinstance(value.meta.get("val"), Tensor | tuple | list) else hint(value)
    if isinstance(value, list | tuple):
        return type(value)(_hint_numbers(item) for item in value)
    return value

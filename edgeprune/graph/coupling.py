"""Propagate labels over a captured graph until nothing changes.

Certain ties come first. Where an operand is broadcast over labels, it is not yet known whether it
is data that merely goes along, so those places wait until all certain ties are made; freezes are
made last, and each knows the node it came from.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.capture import Captured
from edgeprune.graph.constants import fold_constants, written_constants
from edgeprune.graph.labels import CONSTANT, ELEMENT, FEATURE, LabelSets, frozen_labels, strip
from edgeprune.graph.layout import Layout
from edgeprune.graph.ops import argument, hint, is_mutable, op_name, output_shapes, tensor_shape
from edgeprune.graph.rules import LABEL_RULES
from edgeprune.graph.structure import Role

_MAX_ROUNDS = 6
_LARGEST_CONSTANT = 2_000_000


@dataclass(frozen=True, eq=False)
class Weight:
    """A matrix or kernel: one label vector for each of its dimensions."""

    dims: tuple[Tensor, ...]
    parameter: str
    axes: tuple[int, ...]
    """The parameter's dimension behind each of ``dims``, -1 where there is none."""


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

    Rules read labels with :meth:`labels` and :meth:`weight`, relate them with :meth:`tie`,
    :meth:`union` and :meth:`freeze`, and return the labels of their result.
    """

    def __init__(self, captured: Captured, freeze: Sequence[str] = ()) -> None:
        self.captured = captured
        self.graph = captured.module.graph
        self.sets = LabelSets()
        self.values: dict[Node, Any] = {}
        self.weights: dict[str, Weight] = {}
        self.elements: dict[str, Tensor] = {}
        self.uses: dict[tuple[str, int], Use] = {}
        self.causes: list[Cause] = [
            Cause("", "", "", "not part of any structure"),
            Cause("", "", "", "input data"),
        ]
        self.renormalised: dict[Node, Tensor] = {}
        self.states: dict[Node, Tensor] = {
            node: operator.attrgetter(str(node.target))(captured.module).detach()
            for node in self.graph.nodes
            if node.op == "get_attr"
        }
        self._written = written_constants(self.graph)
        self.constants, self.impure = fold_constants(self.graph, self.states)
        self.resolving = False
        self._cause_of: dict[tuple[str, str], int] = {}
        self._node: Node | None = None
        self._frozen_by_user = frozenset(freeze)

    # -- what rules read

    def shape(self, node: Node) -> tuple[int, ...]:
        """Shape of a node's tensor at the example inputs."""
        return tensor_shape(node)

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

    def weight(self, node: Any) -> Weight | None:
        """Label vectors of a parameter, or of a parameter transposed, used as a weight."""
        if isinstance(self.values.get(node), Weight):
            return self.values[node]  # type: ignore[no-any-return]
        if not self.is_parameter(node):
            return None
        name = str(node.target)
        if name not in self.weights:
            shape = self.states[node].shape
            dims = tuple(self.sets.fresh(size, f"{name}:{d}") for d, size in enumerate(shape))
            self.weights[name] = Weight(dims, name, tuple(range(len(shape))))
            if name in self._frozen_by_user:
                self._freeze_user(name)
        return self.weights[name]

    def labels(self, node: Any) -> Any:
        """Labels of a node's value: a label tensor, or a tuple of them."""
        if not isinstance(node, Node):
            return None
        if node in self.values:
            value = self.values[node]
            if isinstance(value, Weight):
                self.freeze_weight(value, "a weight is used as plain data too")
                return frozen_labels(self.shape(node))
            return value
        if self.is_parameter(node):
            return self._element_labels(node)
        constant = self.constant(node)
        if constant is not None and self._is_data(node, constant):
            labels = self.sets.fresh(constant.numel(), f"constant {node.name}", CONSTANT)
            self.values[node] = labels.reshape(constant.shape)
            return self.values[node]
        return frozen_labels(self.shape(node))

    def _element_labels(self, node: Node) -> Tensor:
        name = str(node.target)
        if name not in self.elements:
            shape = self.states[node].shape
            labels = self.sets.fresh(self.states[node].numel(), f"{name}:elements", ELEMENT)
            self.elements[name] = labels.reshape(shape)
            if name in self._frozen_by_user:
                self._freeze_user(name)
        return self.elements[name]

    def _is_data(self, node: Node, constant: Tensor) -> bool:
        """Whether entries of a constant may be removed along with what they belong to."""
        kind = constant.is_floating_point() or constant.dtype == torch.bool
        steady = "dynamic" not in node.meta and node not in self._written
        return kind and steady and constant.numel() < _LARGEST_CONSTANT

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

    def freeze(self, labels: Tensor, reason: str) -> None:
        """Forbid the removal of everything in these labels (once certain ties are made)."""
        if self.resolving:
            self.sets.freeze(strip(labels).numpy(), self.cause(reason))

    def freeze_weight(self, weight: Weight, reason: str) -> None:
        """Freeze every dimension of a weight."""
        for labels in weight.dims:
            self.freeze(labels, reason)

    def _freeze_user(self, name: str) -> None:
        self._node, node = None, self._node
        cause = self.cause(f"{name} is frozen on request")
        self._node = node
        labels = self.weights[name].dims if name in self.weights else (self.elements[name],)
        for vector in labels:
            self.sets.freeze(vector.numpy(), cause)

    def use(self, weight: Weight, output: int | None, input_: int | None, node: Node) -> None:
        """Record which dimension of a weight produces features and which consumes them."""
        roles: tuple[tuple[int | None, Role], ...] = ((output, "output"), (input_, "input"))
        for dim, role in roles:
            if dim is not None and weight.axes[dim] >= 0:
                key = (weight.parameter, weight.axes[dim])
                self.uses.setdefault(key, Use(role, node.name))

    def use_vector(self, node: Any, layer: Node) -> None:
        """Record that a parameter goes along with a layer."""
        if self.is_parameter(node):
            for dim in range(self.states[node].dim()):
                self.uses.setdefault((str(node.target), dim), Use("vector", layer.name))

    def use_vector_dim(self, weight: Weight, dim: int, layer: Node) -> None:
        """Record that one dimension of a weight goes along with a layer."""
        self.uses.setdefault((weight.parameter, weight.axes[dim]), Use("vector", layer.name))

    def varies(self, labels: Tensor, dims: Sequence[int]) -> bool:
        """Whether labels differ along any of these dimensions."""
        return self.sets.varies(labels, dims)

    def is_plain(self, labels: Tensor) -> bool:
        """Whether only entries of parameters and constants are in it, no feature yet."""
        return CONSTANT <= self.sets.level(strip(labels).numpy()) < FEATURE

    def level(self, labels: Tensor) -> int:
        """The highest level of a label tensor, -1 if all of it is frozen."""
        return self.sets.level(strip(labels).numpy())

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
                self.values[node] = self._apply(node)
            elif node.op == "output":
                for source in node.all_input_nodes:
                    self._freeze_value(source, "the network's outputs keep their shape")
        self._node = None
        if self.resolving:
            self._freeze_double_use()

    def _freeze_double_use(self) -> None:
        """A parameter that is a layer's weight and plain data cannot follow both."""
        for node in self.states:
            name = str(node.target)
            if name in self.weights and name in self.elements:
                self._node = next(iter(node.users))
                self.freeze_weight(self.weights[name], f"{name} is a weight and plain data, too")
                self.freeze(self.elements[name], f"{name} is a weight and plain data, too")
        self._node = None

    def _apply(self, node: Node) -> Any:
        if node in self.impure or is_mutable(node):
            return self._opaque(node, "writes into a tensor that is read elsewhere")
        rule = LABEL_RULES.get(op_name(node))
        result = rule(self, node) if rule is not None else None
        return self._opaque(node, "operator without a rule") if result is None else result

    def _opaque(self, node: Node, reason: str) -> Any:
        """Freeze what an operator touches."""
        for source in node.all_input_nodes:
            self._freeze_value(source, reason)
        shapes = [frozen_labels(shape) for shape in output_shapes(node)]
        many = isinstance(node.meta.get("val"), tuple | list)
        return tuple(shapes) if many else (shapes[0] if shapes else frozen_labels(()))

    def _freeze_value(self, node: Node, reason: str) -> None:
        if isinstance(self.values.get(node), Weight):
            self.freeze_weight(self.values[node], reason)
            return
        if self.is_parameter(node):
            weight = self.weight(node)
            if weight is not None:
                self.freeze_weight(weight, reason)
            if str(node.target) not in self.elements:
                return
        if not isinstance(node.meta.get("val"), torch.Tensor | tuple | list):
            return
        labels = self.labels(node)
        for part in labels if isinstance(labels, tuple) else (labels,):
            if part is not None:
                self.freeze(part, reason)

    def _settle_constants(self) -> None:
        """Constants that met no structure are plain data from now on."""
        for node, labels in self.values.items():
            if (
                node in self.constants
                and isinstance(labels, Tensor)
                and self.level(labels) < FEATURE
            ):
                self.values[node] = frozen_labels(labels.shape)

    def freeze_units(self, layout: Layout, name: str, node: Node | None, reason: str) -> None:
        """Freeze one structure of a layout that was taken from this coupling."""
        self._node = node
        cause = self.cause(reason)
        start, count = layout.offsets[name], layout.units[name]
        for parameter, dims in layout.parameters.items():
            if parameter not in self.weights:
                continue
            for dim, units in enumerate(dims):
                if units is not None:
                    inside = (units >= start) & (units < start + count)
                    self.sets.freeze(self.weights[parameter].dims[dim].numpy()[inside], cause)
        self._node = None

    def freeze_everything(self, reason: str) -> None:
        """Nothing can be pruned."""
        for weight in self.weights.values():
            self.freeze_weight(weight, reason)
        for labels in self.elements.values():
            self.freeze(labels, reason)


def _hint_numbers(value: Any) -> Any:
    if isinstance(value, Node):
        return value if isinstance(value.meta.get("val"), Tensor | tuple | list) else hint(value)
    if isinstance(value, list | tuple):
        return type(value)(_hint_numbers(item) for item in value)
    return value

"""LSTM, GRU and plain recurrent layers: the hidden units of all layers and directions are one
structure."""

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.fx import Node

from edgeprune.graph.ops import op_name
from edgeprune.graph.planes import Plane, Planes
from edgeprune.graph.rules.consumption import consumed_and_passing
from edgeprune.graph.rules.registry import labels

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Value

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@labels(*_GATES)
def label_recurrent(c: "Coupling", node: Node) -> "Value | None":
    """Gates are rows of the weights, gate by gate; the state is what is removed."""
    name = op_name(node)
    parameters: Any = node.args[2]
    if not isinstance(parameters, list | tuple):
        return None
    states = list(node.args[1]) if name == "lstm" else [node.args[1]]  # type: ignore[arg-type]
    bias, layers, both = node.args[3], int(node.args[4]), bool(node.args[7])  # type: ignore[arg-type]
    per, directions = (4 if bias else 2), (2 if both else 1)
    if len(parameters) != per * layers * directions:
        return None
    hidden = c.shape(parameters[1])[1]
    unit = c.sets.fresh(hidden, f"{parameters[1].target}:hidden")
    into, _ = consumed_and_passing(c, c.planes(node.args[0]), -1, may_pass=False)
    for layer in range(layers):
        source = into if layer == 0 else unit.repeat(directions)
        for direction in range(directions):
            first = (layer * directions + direction) * per
            _tie_cell(c, node, source, unit, parameters[first : first + per], _GATES[name])
    for state in states:
        _tie_state(c, c.planes(state), unit)
    shapes = [tuple(value.shape) for value in node.meta["val"]]
    results = [Planes(shapes[0], (Plane(unit.repeat(directions).expand(shapes[0])),))]
    results += [Planes(shape, (Plane(unit.expand(shape)),)) for shape in shapes[1:]]
    return tuple(results)


def _tie_cell(
    c: "Coupling", node: Node, source: Tensor, unit: Tensor, parameters: Any, gates: int
) -> None:
    rows = unit.repeat(gates)
    for weight, consumed in ((parameters[0], source), (parameters[1], unit)):
        made, columns = c.axes(weight)
        c.use(made, "output", node)
        c.use(columns, "input", node)
        c.union(consumed, columns, "consumes data that cannot shrink")
        c.union(made, rows)
    for vector in parameters[2:]:
        if isinstance(vector, Node):
            c.use_vector(vector, node)
            c.union(c.axes(vector)[0], rows)


def _tie_state(c: "Coupling", state: Planes, unit: Tensor) -> None:
    """The initial state shrinks with the units, unless it is data of another kind."""
    labels_, _ = consumed_and_passing(c, state, -1, may_pass=False)
    c.union(labels_, unit, "initial state is frozen")


@labels("lstm_cell", "gru_cell")
def label_cell(c: "Coupling", node: Node) -> "Value":
    """One step of a cell: the state that goes in and the one that comes out have the same units."""
    lstm = op_name(node) == "lstm_cell"
    states: Any = node.args[1] if lstm else [node.args[1]]
    unit = c.sets.fresh(c.shape(states[0])[-1], f"{node.args[3]}:hidden")
    into, _ = consumed_and_passing(c, c.planes(node.args[0]), -1, may_pass=False)
    _tie_cell(c, node, into, unit, node.args[2:], _GATES["lstm" if lstm else "gru"])
    for state in states:
        _tie_state(c, c.planes(state), unit)
    values = node.meta["val"] if lstm else (node.meta["val"],)
    results = [Planes(tuple(v.shape), (Plane(unit.expand(v.shape)),)) for v in values]
    return tuple(results) if lstm else results[0]

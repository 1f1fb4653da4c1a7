"""LSTM and GRU: the hidden units of all layers and directions are one structure."""

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.fx import Node

from edgeprune.graph.ops import op_name
from edgeprune.graph.rules.registry import labels

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling

_GATES = {"lstm": 4, "gru": 3}


@labels("lstm", "gru")
def label_recurrent(c: "Coupling", node: Node) -> Any:
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
    x: Tensor = c.labels(node.args[0])
    into = c.tie(x, list(range(x.dim() - 1))).reshape(-1)
    for layer in range(layers):
        source = into if layer == 0 else unit.repeat(directions)
        for direction in range(directions):
            first = (layer * directions + direction) * per
            _tie_cell(c, node, source, unit, parameters[first : first + per], _GATES[name])
    for state in states:
        _tie_state(c, c.labels(state), unit)
    values = node.meta["val"]
    results = [unit.repeat(directions).expand(values[0].shape)]
    results += [unit.expand(value.shape) for value in values[1:]]
    return tuple(results)


def _tie_cell(
    c: "Coupling", node: Node, source: Tensor, unit: Tensor, parameters: Any, gates: int
) -> None:
    inputs, recurrent = c.weight(parameters[0]), c.weight(parameters[1])
    assert inputs is not None and recurrent is not None
    c.use(inputs, 0, 1, node)
    c.use(recurrent, 0, 1, node)
    c.union(source.expand(len(inputs.dims[1])), inputs.dims[1])
    c.union(recurrent.dims[1], unit)
    rows = unit.repeat(gates)
    for labels_ in (inputs.dims[0], recurrent.dims[0]):
        c.union(labels_, rows)
    for vector in parameters[2:]:
        c.use_vector(vector, node)
        c.union(c.labels(vector), rows)


def _tie_state(c: "Coupling", state: Tensor, unit: Tensor) -> None:
    """The initial state shrinks with the units, unless it is data of another kind."""
    flat = state.reshape(-1, len(unit))
    if flat.stride(-1) == 0:
        c.union(flat[:1].expand(1, len(unit)), unit.reshape(1, -1), "initial state is frozen")
        return
    c.union(flat, unit.reshape(1, -1).expand(flat.shape), "initial state is frozen")

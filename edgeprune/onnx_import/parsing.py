"""From ONNX's own records to a graph, computing at once what depends on constants only."""

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from edgeprune.errors import InputError
from edgeprune.onnx_import.evaluation import evaluate
from edgeprune.onnx_import.graph import Constant, OnnxGraph, OnnxNode, branches, remove_dead_nodes
from edgeprune.onnx_import.host import Host
from edgeprune.onnx_import.reading import NodeChecker
from edgeprune.onnx_import.registry import Operator, find_operator
from edgeprune.onnx_import.types import as_array, rounded_name, torch_type

if TYPE_CHECKING:
    import onnx

# What they make of a weight is still that weight.
_VIEWS = frozenset({"Cast", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_NOTHING: frozenset[str] = frozenset()
_NOTED_SCOPES = "pkg.torch.onnx.name_scopes"


class GraphParser:
    """Reads a graph and those of its branches.

    Attributes:
        rounded: Names of floating types that the file holds and that are read as float32.
    """

    def __init__(self, opsets: dict[str, int], checker: NodeChecker) -> None:
        self.rounded: set[str] = set()
        self._opsets = opsets
        self._checker = checker
        self._count = 0

    def parse(
        self, proto: "onnx.GraphProto", outer: dict[str, Constant], above: frozenset[str] = _NOTHING
    ) -> OnnxGraph:
        """The graph, given the constants and the names of other values of those around it.

        Raises:
            InputError: An operator or a type that cannot be used; the line names its node.
        """
        constants = dict(outer)
        for tensor in proto.initializer:
            constants[tensor.name] = self._constant(tensor.name, tensor, learned=True)
        if proto.sparse_initializer:
            name = proto.sparse_initializer[0].values.name
            raise InputError(f"weight '{name}' is stored sparse; save it dense")
        stored = {tensor.name for tensor in proto.initializer}
        inputs = [value.name for value in proto.input if value.name not in stored]
        graph = OnnxGraph(inputs, [value.name for value in proto.output], [], constants)
        self._add_nodes(graph, proto, {*above, *inputs})
        remove_dead_nodes(graph)
        return graph

    def _add_nodes(self, graph: OnnxGraph, proto: "onnx.GraphProto", made: set[str]) -> None:
        """Add nodes to a graph in which these values are there already."""
        for record in proto.node:
            if record.op_type == "Constant" and record.domain in ("", "ai.onnx"):
                self._store(graph, record)
            elif not self._inline_branch(graph, record, made):
                self._add(graph, self._node(graph, record, made))
            made.update(record.output)
        for value in proto.output:
            if value.name not in made and value.name not in graph.constants:
                raise InputError(f"nothing makes the output '{value.name}'; export the model again")

    def _inline_branch(self, graph: OnnxGraph, record: "onnx.NodeProto", made: set[str]) -> bool:
        """Put the chosen branch of an If on a constant in its place."""
        condition = graph.constants.get(record.input[0]) if record.op_type == "If" else None
        if condition is None:
            return False
        name = "then_branch" if bool(condition.array.reshape(-1)[0]) else "else_branch"
        branch = next(a.g for a in record.attribute if a.name == name)
        for tensor in branch.initializer:
            graph.constants[tensor.name] = self._constant(tensor.name, tensor, learned=True)
        self._add_nodes(graph, branch, made)
        for inner, outer in zip(branch.output, record.output):
            source = [inner.name]
            node = OnnxNode("Identity", "", f"{record.name}_{outer}", source, [outer], {}, 13)
            self._add(graph, node)
        return True

    def _add(self, graph: OnnxGraph, node: OnnxNode) -> None:
        known = [graph.constants.get(name) for name in node.inputs if name]
        if all(constant is not None for constant in known) and not branches(node):
            self._fold(graph, node, find_operator(node))
        else:
            graph.nodes.append(node)

    def _fold(self, graph: OnnxGraph, node: OnnxNode, operator: Operator) -> None:
        """Compute a node of constants."""
        sources = [graph.constants[name] if name else None for name in node.inputs]
        if node.op_type == "Identity" and sources[0] is not None:
            graph.constants[node.outputs[0]] = sources[0]
            return
        values = [None if source is None else source.value for source in sources]
        with torch.no_grad():
            results = evaluate(node, operator, values)
        learned = any(source is not None and source.learned for source in sources)
        for name, result in zip(node.outputs, results):
            if not name or result is None:
                continue
            made = _as_host(result)
            first = sources[0] if sources else None
            own_name = first.name if first is not None and node.op_type in _VIEWS else name
            transposed = node.inputs[0] if _is_transpose(node) else None
            graph.constants[name] = Constant(
                own_name, made, learned and made.dtype == torch.float32, transposed
            )

    def _store(self, graph: OnnxGraph, record: "onnx.NodeProto") -> None:
        (name,), attribute = record.output, record.attribute[0]
        if attribute.name == "value":
            graph.constants[name] = self._constant(name, attribute.t, learned=False)
            return
        given = self._attribute(graph, attribute)
        if attribute.name not in ("value_int", "value_ints", "value_float", "value_floats"):
            raise InputError(f"node '{record.name}' (Constant) holds {attribute.name}; use numbers")
        dtype = torch.int64 if "int" in attribute.name else torch.float32
        graph.constants[name] = Constant(name, _as_host(torch.tensor(given, dtype=dtype)))

    def _constant(self, name: str, tensor: "onnx.TensorProto", *, learned: bool) -> Constant:
        array, dtype = as_array(tensor), torch_type(tensor.data_type)
        if array is None or dtype is None:
            import onnx

            kind = onnx.TensorProto.DataType.Name(tensor.data_type)
            raise InputError(
                f"weight '{name}' is {kind}, which cannot be pruned; give the float32 model"
            )
        rounded = rounded_name(tensor.data_type)
        if rounded is not None:
            self.rounded.add(rounded)
        return Constant(name, Host(array, dtype), learned and dtype == torch.float32)

    def _node(self, graph: OnnxGraph, record: "onnx.NodeProto", made: set[str]) -> OnnxNode:
        """The node, once its operator is known; a choice between branches has none."""
        self._count += 1
        domain = "" if record.domain == "ai.onnx" else record.domain
        name = record.name or f"{record.op_type}_{self._count}"
        inputs, outputs = list(record.input), list(record.output)
        opset = self._opsets.get(domain, 1)
        node = OnnxNode(record.op_type, domain, name, inputs, outputs, {}, opset, _scope(record))
        for source in inputs:
            if source and source not in made and source not in graph.constants:
                raise InputError(f"{node.label} reads '{source}', which nothing makes before it")
        if record.op_type != "If":
            find_operator(node)
            self._checker.check(record, name)
        above = frozenset(made)
        node.attributes = {a.name: self._attribute(graph, a, above) for a in record.attribute}
        return node

    def _attribute(
        self, graph: OnnxGraph, attribute: "onnx.AttributeProto", above: frozenset[str] = _NOTHING
    ) -> Any:
        import onnx

        if attribute.type == onnx.AttributeProto.GRAPH:
            return self.parse(attribute.g, graph.constants, above)
        if attribute.type == onnx.AttributeProto.TENSOR:
            return self._constant(attribute.name, attribute.t, learned=False).value
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, list | tuple) or attribute.type > onnx.AttributeProto.GRAPH:
            return [item.decode() if isinstance(item, bytes) else item for item in value]
        return value


def _scope(record: "onnx.NodeProto") -> str:
    """The module that a node belongs to: as torch's exporter notes it, or what its name begins
    with, as in ``/encoder/fc/MatMul``."""
    noted = {entry.key: entry.value for entry in record.metadata_props}.get(_NOTED_SCOPES, "")
    modules = re.findall(r"'([^']*)'", noted)[:-1]
    if any(modules):
        return str(modules[-1])
    head, _, last = record.name.rpartition("/")
    ends_with_operator = re.fullmatch(rf"{record.op_type}(_\d+)?", last)
    return str(head if ends_with_operator else record.name)


def _is_transpose(node: OnnxNode) -> bool:
    return node.op_type == "Transpose" and node.attributes.get("perm", [1, 0]) == [1, 0]


def _as_host(value: Tensor | Host) -> Host:
    if isinstance(value, Host):
        return Host(np.array(value.known()), value.dtype)
    return Host(value.detach().contiguous().numpy(), value.dtype)

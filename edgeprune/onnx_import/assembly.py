"""From a finished graph to the module: paths, parameters and the order of execution."""

import numpy as np
from torch import nn

from edgeprune.graph.modules import attach
from edgeprune.onnx_import.graph import Constant, OnnxGraph, OnnxNode, branches
from edgeprune.onnx_import.host import Host
from edgeprune.onnx_import.model import (
    InputSpec,
    OnnxModel,
    OnnxOperator,
    Program,
    Source,
    Step,
    Stored,
)
from edgeprune.onnx_import.naming import Names
from edgeprune.onnx_import.registry import Operator, find_operator


def assemble(
    graph: OnnxGraph, inputs: list[InputSpec], output_names: list[str], notes: list[str]
) -> OnnxModel:
    """The module of a graph whose constants are folded and whose layers are recognised."""
    model = OnnxModel(inputs, output_names, notes)
    model._program = _Assembly(model).program(graph)
    return model.eval()


class _Assembly:
    """Adds modules and tensors to a model while it puts the program together."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self._names = Names(model, OnnxOperator)
        self._stored: dict[tuple[int, bool, str], Stored] = {}

    def program(self, graph: OnnxGraph) -> Program:
        steps = tuple(self._step(graph, node) for node in graph.nodes)
        constants = graph.constants
        outputs = [constants[n].value if n in constants else n for n in graph.outputs]
        return Program(steps, tuple(outputs))

    def _step(self, graph: OnnxGraph, node: OnnxNode) -> Step:
        if branches(node):
            inner = {k: self.program(g) for k, g in node.attributes.items()}
            sources = tuple(self._plain(graph, name) for name in node.inputs)
            return Step(node, "", sources, inner)
        operator = find_operator(node)
        scope = node.scope or node.name
        inputs: list[Source] = []
        for slot, name in enumerate(node.inputs):
            constant = graph.constants.get(name)
            if constant is not None and _is_stored(operator, slot, constant):
                inputs.append(self._store(constant, operator, slot, scope))
            else:
                inputs.append(self._plain(graph, name))
        first = next((x.name for x in inputs if isinstance(x, Stored)), None)
        path = self._names.module(node.name, first)
        self._add_module(path, OnnxOperator(node, operator))
        return Step(node, path, tuple(inputs), {})

    def _plain(self, graph: OnnxGraph, name: str) -> Source:
        constant = graph.constants.get(name)
        if constant is not None:
            return constant.value
        return name or None

    def _store(self, constant: Constant, operator: Operator, slot: int, scope: str) -> Stored:
        """The constant as a parameter or buffer; a vector once for each node that reads it."""
        learned = constant.floating and slot not in operator.buffers
        learned = learned and (constant.learned or slot in operator.weights)
        learned = learned and bool(np.isfinite(constant.array).all())  # or it is a mask
        # Exporters merge equal vectors of layers that have nothing to do with each other.
        reader = "" if constant.array.ndim > 1 else scope
        key = (id(constant), learned, reader)
        if key not in self._stored:
            path = self._names.tensor(constant.name, scope, slot)
            tensor = constant.value.as_tensor()
            attach(self._model, path, nn.Parameter(tensor) if learned else tensor)
            # Both share their memory.
            self._stored[key] = Stored(path, Host(tensor.numpy(), tensor.dtype))
        return self._stored[key]

    def _add_module(self, path: str, module: OnnxOperator) -> None:
        """Put a node's module at its path; tensors that live there already move into it."""
        parent: nn.Module = self._model
        *above, leaf = path.split(".")
        for part in above:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        old = parent._modules.get(leaf)
        if old is not None:
            module._parameters.update(old._parameters)
            module._buffers.update(old._buffers)
            module._modules.update(old._modules)
        parent._modules[leaf] = module


def _is_stored(operator: Operator, slot: int, constant: Constant) -> bool:
    """Whether a constant becomes a tensor of the model, or stays a known number."""
    if slot in operator.host:
        return False
    return not (operator.entrywise and constant.array.size == 1)

"""Writes a graph module as ONNX, with every ONNX node named after the graph node it came from."""

import contextlib
import operator
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from edgeprune.atomic import atomic_path
from edgeprune.errors import InputError
from edgeprune.graph.complex_pairs import with_real_pairs
from edgeprune.graph.functionalise import storage_roots
from edgeprune.graph.modules import attach
from edgeprune.graph.onnx_forms import onnx_form, with_plain_arguments
from edgeprune.graph.onnx_names import keep_inputs, rename_values
from edgeprune.graph.ops import is_mutable, op_name
from edgeprune.graph.running import first_line

_OPSET = 17
_WEIGHTS = "weights"


def export_onnx(
    module: fx.GraphModule,
    example_inputs: Sequence[Tensor],
    path: Path | str,
    *,
    input_names: Sequence[str] | None = None,
) -> None:
    """Export at the static shapes of ``example_inputs``.

    ONNX nodes are named ``/<graph node>/<Op>``, so that a runtime's per-layer profile can be read
    against the graph. Inputs and outputs have the names of the ONNX file that the graph came from,
    if it did; else inputs are named like the graph's placeholders, outputs ``output_0``, ...;
    ``input_names`` goes before both.

    Raises:
        InputError: An operator has no ONNX form; the message names it.
        WorkspaceError: The disk is full, or the folder cannot be written.
    """
    refuse_hidden_writes(module.graph)
    static = _with_static_numbers(with_real_pairs(module), tuple(example_inputs))
    scoped = _with_scopes(static)
    inputs, outputs = value_names(module.graph)
    names = list(input_names or inputs)
    known = {} if input_names else names_of_the_file(module.graph, names, outputs)
    with atomic_path(Path(path)) as partial, _quiet(), torch.no_grad():
        try:
            torch.onnx.export(
                scoped.eval(),
                tuple(x.clone() for x in example_inputs),
                str(partial),
                dynamo=False,
                input_names=names,
                output_names=outputs,
                opset_version=_OPSET,
                do_constant_folding=True,
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            reason = first_line(error).partition(". Please feel free")[0]
            raise InputError(f"the model cannot be written as ONNX: {reason}") from error
        if any(not node.users for node in static.graph.nodes if node.op == "placeholder"):
            keep_inputs(partial, names, example_inputs)
        if known:
            rename_values(partial, known)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its end, and prints a graph that it cannot write to stdout."""
    # It turns its log on whatever was set before.
    log = torch._C._jit_onnx_log
    torch._C._jit_onnx_log = lambda *values: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch._C._jit_onnx_log = log


def value_names(graph: fx.Graph) -> tuple[list[str], list[str]]:
    """What inputs and outputs are called where no ONNX file says otherwise."""
    results = next(node for node in graph.nodes if node.op == "output").args[0]
    inputs = [node.name for node in graph.nodes if node.op == "placeholder"]
    return inputs, [f"output_{i}" for i in range(len(results))]


def names_of_the_file(graph: fx.Graph, inputs: list[str], outputs: list[str]) -> dict[str, str]:
    """What the values of these names are called in the ONNX file that the graph came from."""
    nodes = [node for node in graph.nodes if node.op == "placeholder"]
    result = next(node for node in graph.nodes if node.op == "output")
    found = {
        name: node.meta["onnx_name"]
        for name, node in zip(inputs, nodes, strict=True)
        if "onnx_name" in node.meta
    }
    return found | dict(zip(outputs, result.meta.get("onnx_names", ())))


def refuse_hidden_writes(graph: fx.Graph) -> None:
    """What is written by a view would be lost in the file without a word."""
    roots = storage_roots(graph)
    for node in graph.nodes:
        if is_mutable(node) and isinstance(node.args[0], Node):
            written = node.args[0]
            if roots[written] is not written:
                place = node.meta.get("source") or node.name
                raise InputError(
                    f"the model cannot be written as ONNX: {op_name(node)} at {place} writes into "
                    "a part of a tensor; build that tensor by torch.cat or torch.where"
                )


class _Operator(nn.Module):
    """One operator as a module: its attribute name becomes the scope of its ONNX nodes."""

    def __init__(self, target: Any) -> None:
        super().__init__()
        self.target = target

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The operator's result."""
        return self.target(*args, **kwargs)


def _with_static_numbers(module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """A copy in which every size is the number it is at these inputs."""
    numbers: dict[str, Any] = {}
    sizes: dict[str, tuple[int, ...]] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, int | float | bool):
                numbers[n.name] = result
            elif isinstance(result, Tensor):
                sizes[n.name] = tuple(result.shape)
            return result

    with torch.no_grad():
        Recorder(module).run(*(x.clone() for x in inputs))
    graph = fx.Graph()
    copies: dict[Node, Any] = {}
    shapes: dict[Node, tuple[int, ...]] = {}
    for node in module.graph.nodes:
        if node.name in numbers:
            copies[node] = numbers[node.name]
        elif node.op == "output":
            graph.output(fx.node.map_arg(node.args[0], lambda n: copies[n]))
        else:
            copy = copies[node] = graph.node_copy(node, lambda n: copies[n])
            copy.name = node.name
            if node.name in sizes:
                shapes[copy] = sizes[node.name]
            with_plain_arguments(copy, shapes)
    graph.eliminate_dead_code()
    return fx.GraphModule(module, graph)


def _with_scopes(module: fx.GraphModule) -> fx.GraphModule:
    """Every operator called through a submodule of the node's name."""
    graph = fx.Graph()
    copies: dict[Node, Node] = {}
    root = nn.Module()
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        attach(root, f"{_WEIGHTS}.{name}", value)
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target is not operator.getitem:
            root.add_module(node.name, _Operator(onnx_form(node)))
            args = fx.node.map_arg(node.args, lambda n: copies[n])
            kwargs = fx.node.map_arg(node.kwargs, lambda n: copies[n])
            copies[node] = graph.call_module(node.name, args, kwargs)
        elif node.op == "output":
            graph.output(fx.node.map_arg(node.args[0], lambda n: copies[n]))
        elif node.op == "get_attr":
            copies[node] = graph.get_attr(f"{_WEIGHTS}.{node.target}")
        else:
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    return fx.GraphModule(root, graph)

"""Activations that a file spells in several nodes, recognised by what they compute.

A product whose operands come from one value by operators that work entry by entry is tried on
numbers: where it gives what a known activation gives, it is that activation. Runtimes and sparse
kernels run those in one pass.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeprune.onnx_import.evaluation import evaluate
from edgeprune.onnx_import.graph import OnnxGraph, OnnxNode, branches, remove_dead_nodes
from edgeprune.onnx_import.registry import OWN, Value, find_operator

_ENTRYWISE = frozenset({
    "Add", "Sub", "Mul", "Div", "Pow", "Erf", "Tanh", "Sigmoid", "Softplus", "Exp", "Log", "Clip",
    "Relu", "HardSigmoid", "Identity", "Neg", "Sqrt",
})  # fmt: skip
_KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "Gelu": F.gelu,
    "TanhGelu": lambda x: F.gelu(x, approximate="tanh"),
    "Silu": F.silu,
    "HardSwish": F.hardswish,
    "Mish": F.mish,
}
# The tanh form of GELU has eight nodes.
_MOST_NODES = 10
_PROBE = torch.linspace(-9, 9, 181)
_TOLERANCE = 3e-6


def recognise_activations(graph: OnnxGraph) -> None:
    """Replace them by single nodes in the graph and its branches, in place."""
    for node in graph.nodes:
        for branch in branches(node):
            recognise_activations(branch)
    producers, readers = graph.producers(), graph.readers()
    done: set[int] = set()
    for node in reversed(graph.nodes):
        if node.op_type not in ("Mul", "Div") or node.domain != "" or id(node) in done:
            continue
        for source, region in _regions(graph, producers, node):
            name = _activation(graph, source, region)
            if name is not None and _is_closed(graph, readers, region):
                done.update(id(inner) for inner in region)
                node.op_type, node.domain, node.attributes = name, OWN, {}
                node.inputs = [source]
                break
    remove_dead_nodes(graph)


def _regions(
    graph: OnnxGraph, producers: dict[str, OnnxNode], end: OnnxNode
) -> Iterator[tuple[str, list[OnnxNode]]]:
    """Values from which alone ``end`` may be computed, with the nodes on the way in order."""
    order = {id(node): place for place, node in enumerate(graph.nodes)}
    region: list[OnnxNode] = []
    frontier = [end]
    while frontier and len(region) < _MOST_NODES:
        region.append(frontier.pop())
        made = {name for node in region for name in node.outputs}
        reads = [n for node in region for n in node.inputs if n and n not in graph.constants]
        open_ = sorted({name for name in reads if name not in made})
        if len(open_) == 1 and len(region) > 1:
            yield open_[0], sorted(region, key=lambda node: order[id(node)])
        # The latest maker first: what several nodes read is reached when all of them are inside.
        makers = [producers[name] for name in open_ if name in producers]
        makers = [node for node in makers if node.op_type in _ENTRYWISE and node.domain == ""]
        frontier = sorted(makers, key=lambda node: order[id(node)])[-1:]


def _activation(graph: OnnxGraph, source: str, region: list[OnnxNode]) -> str | None:
    """The activation that these nodes compute of ``source``, if it is a known one."""
    values: dict[str, Value] = {source: _PROBE}
    for node in region:
        constants = [graph.constants.get(name) for name in node.inputs if name]
        if any(x is not None and x.array.size != 1 for x in constants):
            return None
        inputs = [
            None if not name else graph.constants[name].value if name in graph.constants
            else values[name]
            for name in node.inputs
        ]  # fmt: skip
        values[node.outputs[0]] = evaluate(node, find_operator(node), inputs)[0]
    found = values[region[-1].outputs[0]]
    if not isinstance(found, Tensor) or found.shape != _PROBE.shape:
        return None
    same = (name for name, f in _KNOWN.items() if (f(_PROBE) - found).abs().max() < _TOLERANCE)
    return next(same, None)


def _is_closed(
    graph: OnnxGraph, readers: dict[str, list[OnnxNode]], region: list[OnnxNode]
) -> bool:
    """Whether nothing outside reads what is computed on the way."""
    inside = {id(node) for node in region}
    return all(
        name not in graph.outputs and all(id(reader) in inside for reader in readers[name])
        for node in region[:-1]
        for name in node.outputs
    )

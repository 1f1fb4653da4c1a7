"""An ONNX graph as it is worked on while it is loaded: nodes, constants, names."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import torch

from edgeprune.onnx_import.host import Host


@dataclass
class OnnxNode:
    """One node.

    Attributes:
        inputs: Names; empty where an optional one is left out.
        attributes: Plain Python values, arrays, or graphs of branches.
        opset: Version of its domain's operators.
        scope: The module of the framework that it belongs to, as far as the file tells.
    """

    op_type: str
    domain: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    opset: int
    scope: str = ""

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"node '{self.name}' ({self.op_type})"


@dataclass
class Constant:
    """A value that depends on no input.

    Attributes:
        name: What to call it: as the file does, or like the weight that it is a view of.
        value: The numbers.
        learned: Whether it comes from what the file stores as weights.
        transpose_of: The value that it is the transpose of, where it is one of a matrix.
    """

    name: str
    value: Host
    learned: bool = False
    transpose_of: str | None = None

    @property
    def array(self) -> npt.NDArray[Any]:
        """The numbers."""
        return self.value.array

    @property
    def floating(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.value.dtype == torch.float32


@dataclass
class OnnxGraph:
    """Nodes in order, what they compute from, and what is asked of them."""

    inputs: list[str]
    outputs: list[str]
    nodes: list[OnnxNode]
    constants: dict[str, Constant] = field(default_factory=dict)

    def readers(self) -> dict[str, list[OnnxNode]]:
        """By value the nodes that read it, once for each time; branches read for their node."""
        found: dict[str, list[OnnxNode]] = defaultdict(list)
        for node in self.nodes:
            for name in all_inputs(node):
                found[name].append(node)
        return found

    def producers(self) -> dict[str, OnnxNode]:
        """By value the node that makes it."""
        return {name: node for node in self.nodes for name in node.outputs if name}


def all_inputs(node: OnnxNode) -> list[str]:
    """Names that a node reads, also inside its branches."""
    names = [name for name in node.inputs if name]
    for branch in branches(node):
        made = {name for inner in branch.nodes for name in inner.outputs}
        for inner in branch.nodes:
            names += [name for name in all_inputs(inner) if name not in made]
        names += [name for name in branch.outputs if name not in made]
    return names


def branches(node: OnnxNode) -> list[OnnxGraph]:
    """The graphs among a node's attributes."""
    return [value for value in node.attributes.values() if isinstance(value, OnnxGraph)]


def remove_dead_nodes(graph: OnnxGraph) -> None:
    """Keep only the nodes that the outputs need, in place."""
    needed = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if needed & set(node.outputs):
            kept.append(node)
            needed.update(all_inputs(node))
    graph.nodes = kept[::-1]

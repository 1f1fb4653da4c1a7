"""Readable names and kinds for families of units."""

from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.fx import Node

from edgeprune.graph.coupling import Coupling
from edgeprune.graph.ops import op_name

_ATTENTION = {"scaled_dot_product_attention", "bmm", "baddbmm", "matmul", "einsum"}
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell"}
_Family = npt.NDArray[np.int32]


def describe_families(
    coupling: Coupling, family: _Family, count: int, values: dict[Node, Any]
) -> list[tuple[str, str]]:
    """Name and kind of every family; ``family`` maps a class to its index."""
    producers, paths = _layers(coupling, family)
    known = _families_by_operator(coupling, family, values)
    nodes = {node.name: node for node in coupling.graph.nodes}
    result: list[tuple[str, str]] = []
    taken: set[str] = set()
    for index in range(count):
        first = nodes[producers[index][0]] if producers[index] else None
        kind = _kind(index, first, known)
        path = _common_path(paths[index])
        if not path and first is not None:
            path = first.meta["module_path"]
        name = _unique(f"{path or 'network'}:{kind}", taken)
        taken.add(name)
        result.append((name, kind))
    return result


def _kind(index: int, first: Node | None, known: dict[str, set[int]]) -> str:
    for kind, families in known.items():
        if index in families:
            return kind
    operator = op_name(first) if first is not None else ""
    if operator.startswith("conv"):
        return "channels"
    return "hidden" if operator in _RECURRENT else "neurons"


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate = f"{name}.{number}"
        number += 1
    return candidate


def _layers(
    coupling: Coupling, family: _Family
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Per family the producing layers in graph order, and module paths of all its layers."""
    position = {node.name: i for i, node in enumerate(coupling.graph.nodes)}
    nodes = {node.name: node for node in coupling.graph.nodes}
    producers: dict[int, list[str]] = defaultdict(list)
    paths: dict[int, list[str]] = defaultdict(list)
    uses = sorted(coupling.uses.items(), key=lambda item: position[item[1].layer])
    for (parameter, dim), use in uses:
        labels = coupling.labels_along(parameter, dim)
        if labels is None or use.role == "vector":
            continue
        classes = coupling.sets.find(labels.numpy())
        for index in np.unique(family[classes]).tolist():
            if index < 0:
                continue
            paths[index].append(nodes[use.layer].meta["module_path"])
            if use.role == "output":
                producers[index].append(use.layer)
    return producers, paths


def _families_by_operator(
    coupling: Coupling, family: _Family, values: dict[Node, Any]
) -> dict[str, set[int]]:
    """Families by kind: along the batch of a product of two values (heads), summed over in one
    (what heads are wide), added up (the width of a residual stream), and chosen among (experts)."""

    def families(node: Node, dims: slice = slice(None)) -> set[int]:
        found: set[int] = set()
        for tensor in values.get(node, []):
            for classes in tensor[dims]:
                if classes is not None:
                    found.update(np.unique(family[classes]).tolist())
        return found - {-1}

    layers = _layers_behind(coupling)
    heads: set[int] = set()
    head_widths: set[int] = set()
    widths: set[int] = set()
    for node in coupling.graph.nodes:
        name = op_name(node) if node.op == "call_function" else ""
        if name in _ATTENTION:
            factors = _factors(node)
            if any(i in coupling.stored for i in factors):
                continue
            first, second = (families(i) for i in factors[:2])
            heads |= families(node, slice(-2)) & first & second
            head_widths |= (first & second) - families(node, slice(-2))
            if node.name in coupling.narrow:
                head_widths |= set().union(*(families(i) for i in factors)) - heads
        elif name == "add" and len({layers[i] for i in node.all_input_nodes}) == 2:
            widths |= families(node).intersection(*(families(i) for i in node.all_input_nodes))
    experts = {i for c in coupling.expert_choices for i in families(c.router, slice(-1, None))}
    return {"experts": experts, "heads": heads, "width": widths, "head_width": head_widths}


def _factors(node: Node) -> list[Node]:
    """The values that a product multiplies; of attention queries, keys and values."""
    name = op_name(node)
    if name == "einsum":
        return [value for value in node.args[1] if isinstance(value, Node)]  # type: ignore[union-attr]
    first = 1 if name == "baddbmm" else 0
    count = 3 if name == "scaled_dot_product_attention" else 2
    return [value for value in node.args[first : first + count] if isinstance(value, Node)]


def _layers_behind(coupling: Coupling) -> dict[Node, frozenset[str]]:
    """For every node the layers whose features it holds, up to the next layer."""
    names = {use.layer for use in coupling.uses.values() if use.role == "output"}
    behind: dict[Node, frozenset[str]] = {}
    for node in coupling.graph.nodes:
        if node.name in names:
            behind[node] = frozenset([node.name])
        else:
            behind[node] = frozenset().union(*(behind[i] for i in node.all_input_nodes))
    return behind


def _common_path(paths: list[str]) -> str:
    """The longest module path that all paths start with."""
    split = [path.split(".") for path in paths]
    common: list[str] = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) != 1:
            break
        common.append(parts[0])
    return ".".join(common)

"""Readable, unique node names and the source line of every node."""

import builtins
import keyword
import re
from collections import Counter
from pathlib import PurePath
from typing import Any

from torch import fx, nn
from torch.fx import Node

from edgeprune.graph.ops import op_name

# A node's name becomes a variable in generated code and a scope when exported.
_RESERVED = {
    "output",
    "torch",
    "inf",
    "nan",
    "device",
    "fx_pytree",
    "pytree",
    "self",
    "operator",
    "weights",
}
_RESERVED |= {*dir(builtins), *keyword.kwlist, *dir(nn.Module()), *dir(fx.GraphModule)}
# What torch writes for nodes of a graph module that tells no modules.
_NO_MODULE = "empty_nn_module_stack_from_metadata_hook"
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def annotate_sources(graph: fx.Graph) -> None:
    """Write ``module_path`` and ``source`` into every node's meta."""
    for node in graph.nodes:
        node.meta["module_path"] = _module_path(node)
        node.meta["source"] = _source(node)


def keep_onnx_names(graph: fx.Graph, model: nn.Module) -> None:
    """Write the names of a model's inputs, of their dimensions, and of its outputs into meta."""
    inputs = getattr(model, "onnx_input_names", ())
    axes = getattr(model, "onnx_input_axes", ()) or [()] * len(inputs)
    outputs = getattr(model, "onnx_output_names", ())
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    result = next(node for node in graph.nodes if node.op == "output")
    if len(inputs) == len(placeholders):
        for node, name, named in zip(placeholders, inputs, axes, strict=True):
            node.meta["onnx_name"] = name
            node.meta["onnx_axes"] = tuple(named)
    if len(outputs) == len(result.args[0]):
        result.meta["onnx_names"] = tuple(outputs)


def _module_path(node: Node) -> str:
    """The innermost module; in a graph that was read without its modules, the one whose parameters
    are read."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    paths = [str(entry[0]) for key, entry in stack.items() if key != _NO_MODULE]
    if paths and paths[-1]:
        return paths[-1]
    return next((owner for owner in _owners(node) if owner), "")


def _source(node: Node) -> str:
    """The innermost line outside torch, as ``file.py:123``; a node of an ONNX file has none."""
    best = ""
    if "/onnx_import/" in (node.meta.get("stack_trace") or "").replace("\\", "/"):
        return best
    for match in _FRAME.finditer(node.meta.get("stack_trace") or ""):
        if "/torch/" not in match["file"].replace("\\", "/"):
            best = f"{PurePath(match['file']).name}:{match['line']}"
    return best


def rename_nodes(graph: fx.Graph) -> None:
    """Name operators after their module: ``encoder_layer_0_output_dense``, ``..._gelu``.

    An operator that reads a parameter of its module bears the module's name alone.
    """
    seen: Counter[str] = Counter()
    taken = {_identifier(str(n.target)) for n in graph.nodes if n.op == "placeholder"}
    nodes = [n for n in graph.nodes if n.op in ("call_function", "get_attr")]
    plan: list[tuple[Node, str]] = []
    for node in nodes:
        base = _identifier(_base_name(node))
        name = base
        while name in taken:
            seen[base] += 1
            name = f"{base}_{seen[base]}"
        taken.add(name)
        plan.append((node, name))
    for index, (node, _) in enumerate(plan):
        node.name = f"edgeprune_renaming_{index}"
    for node, name in plan:
        node.name = name


def _base_name(node: Node) -> str:
    if node.op == "get_attr":
        return f"param_{node.target}"
    path, operator_name = node.meta["module_path"], op_name(node)
    if not path:
        return operator_name
    return str(path) if path in _owners(node) else f"{path}_{operator_name}"


def _owners(node: Node) -> list[str]:
    """Paths of the modules whose parameters an operator reads."""
    return [str(i.target).rpartition(".")[0] for i in node.all_input_nodes if i.op == "get_attr"]


def _identifier(text: str) -> str:
    name = re.sub(r"\W", "_", text).strip("_") or "node"
    return f"op_{name}" if name[0].isdigit() or name in _RESERVED else name

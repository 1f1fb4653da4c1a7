"""Names and arguments of graph operators, independent of overloads and in-place variants."""

import operator
from typing import Any

import torch
from torch.fx import Node

_ALIASES = {"concat": "cat", "concatenate": "cat", "_softmax": "softmax", "swapaxes": "transpose"}


def op_name(node: Node) -> str:
    """The operator's plain name: ``add`` for ``aten.add_.Tensor``, ``getitem`` for indexing."""
    if node.target is operator.getitem:
        return "getitem"
    if isinstance(node.target, torch._ops.OpOverload):
        name = node.target._schema.name.split("::")[-1]
        if name in ("min", "max") and node.target._overloadname == "other":
            return f"{name}imum"
    else:
        name = getattr(node.target, "__name__", str(node.target))
    name = name if name.startswith("__") else name.rstrip("_")
    return _ALIASES.get(name, name)


def argument(node: Node, index: int, name: str = "", default: Any = None) -> Any:
    """Argument by position, else by name, else its default."""
    if len(node.args) > index:
        return node.args[index]
    return node.kwargs.get(name, default)


def is_constant(node: Node) -> bool:
    """Whether a value depends on no input of the graph."""
    waiting, seen = [node], {node}
    while waiting:
        source = waiting.pop()
        if source.op == "placeholder":
            return False
        new = [before for before in source.all_input_nodes if before not in seen]
        seen.update(new)
        waiting.extend(new)
    return True


def is_mutable(node: Node) -> bool:
    """Whether the operator writes into one of its arguments."""
    return (
        node.op == "call_function"
        and isinstance(node.target, torch._ops.OpOverload)
        and node.target._schema.is_mutable
    )


def hint(value: Any) -> Any:
    """An argument with every graph node that stands for a number replaced by its hint."""
    if isinstance(value, Node):
        return value.meta["val"]
    if isinstance(value, list | tuple):
        return type(value)(hint(item) for item in value)
    return value


def tensor_shape(node: Node) -> tuple[int, ...]:
    """Shape of a single-tensor node at the example inputs."""
    return tuple(int(size) for size in node.meta["val"].shape)


def output_shapes(node: Node) -> tuple[tuple[int, ...], ...]:
    """Shapes of every tensor that the node returns, at the example inputs."""
    if "shapes" not in node.meta:
        value = node.meta.get("val")
        values = value if isinstance(value, tuple | list) else (value,)
        node.meta["shapes"] = tuple(tuple(v.shape) for v in values if isinstance(v, torch.Tensor))
    found: tuple[tuple[int, ...], ...] = node.meta["shapes"]
    return found

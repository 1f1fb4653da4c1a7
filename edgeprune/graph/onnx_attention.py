"""Attention as it is exported: in the operators that runtimes run fastest."""

import copy
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgeprune.graph.attention import attend, is_attention, plain_attention
from edgeprune.graph.ops import op_name

_VIEWS = frozenset({"view", "reshape", "transpose", "permute", "unflatten", "contiguous", "alias"})
# Batch, heads, positions, features: what runtimes fuse.
_DIMENSIONS = 4


@torch.no_grad()
def with_plain_attention(module: fx.GraphModule) -> fx.GraphModule:
    """A copy whose attention is computed by ``attend``, but for its rarer forms.

    The factor of the scores moves into the layer that makes the queries, where nothing but views
    stand between. Other parameters are shared.
    """
    graph = copy.deepcopy(module.graph)
    scaled = fx.GraphModule(module, graph)
    for node in graph.nodes:
        found = plain_attention(node) if is_attention(node) else None
        query = None if found is None else found.query.meta.get("val")
        if found is None or not isinstance(query, Tensor) or query.dim() != _DIMENSIONS:
            continue
        factor, layer = found.scale, _source(found.query)
        if layer is not None:
            _scale_layer(scaled, layer, factor)
            factor = 1.0
        node.target = attend
        node.args = (found.query, found.key, found.value, found.mask, factor)
        node.kwargs = {}
    scaled.recompile()
    return scaled


def _source(query: fx.Node) -> fx.Node | None:
    """The linear layer whose output alone, seen in other shapes, the queries are."""
    node = query
    while len(node.users) == 1 and op_name(node) in _VIEWS and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    own = op_name(node) == "linear" and len(node.users) == 1
    return node if own and all(_alone(argument) for argument in node.args[1:]) else None


def _alone(argument: Any) -> bool:
    """Whether nothing else reads a stored parameter, if it is one."""
    if argument is None:
        return True
    return isinstance(argument, fx.Node) and argument.op == "get_attr" and len(argument.users) == 1


def _scale_layer(module: fx.GraphModule, layer: fx.Node, factor: float) -> None:
    """Give a layer, in place, parameters of its own that are a factor larger."""
    for parameter in layer.args[1:]:
        if isinstance(parameter, fx.Node):
            name = f"scaled_{str(parameter.target).replace('.', '_')}"
            value = attrgetter(str(parameter.target))(module)
            module.register_parameter(name, nn.Parameter(value * factor, requires_grad=False))
            parameter.target = name

"""Attention in the operators that runtimes run fastest.

torch's own export scales query and key by a root each and guards every softmax against rows that
see nothing, which costs a runtime some passes over the scores and hides the transposed product.
"""

import copy
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgeprune.graph.ops import argument, op_name

_VIEWS = frozenset({"view", "reshape", "transpose", "permute", "unflatten", "contiguous", "alias"})


@torch.no_grad()
def with_plain_attention(module: fx.GraphModule) -> fx.GraphModule:
    """A copy whose attention is computed by :func:`attend`, but for its rarer forms.

    The factor of the scores moves into the layer that makes the queries, where nothing but views
    stand between. Other parameters are shared.
    """
    graph = copy.deepcopy(module.graph)
    scaled = fx.GraphModule(module, graph)
    for node in graph.nodes:
        if node.op != "call_function" or op_name(node) != "scaled_dot_product_attention":
            continue
        rare = (
            argument(node, 5, "is_causal", False)
            or argument(node, 7, "enable_gqa", False)
            or argument(node, 4, "dropout_p", 0.0)
        )
        query = node.args[0].meta.get("val")
        if rare or not isinstance(query, Tensor) or query.dim() != 4:
            continue
        mask, scale = argument(node, 3, "attn_mask"), argument(node, 6, "scale")
        factor = float(query.shape[-1]) ** -0.5 if scale is None else float(scale)
        layer = _source(node.args[0])
        if layer is not None:
            _scale_layer(scaled, layer, factor)
            factor = 1.0
        node.target = attend
        node.args = (*node.args[:3], mask, factor)
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


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Scaled dot-product attention.

    A row of a boolean mask that hides everything gives the mean of the values, where torch gives
    zeros: such rows belong to padding, which nothing reads.

    Args:
        query: (batch, heads, queries, features); ``key`` and ``value`` alike.
        mask: True is visible, or numbers to add; broadcast to the scores.
        scale: Factor of the scores.
    """
    scores = torch.matmul(query if scale == 1.0 else query * scale, key.transpose(-1, -2))
    if mask is not None:
        scores = scores + (_additive(mask, query) if mask.dtype == torch.bool else mask)
    return torch.matmul(torch.softmax(scores, -1), value)


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    zeros = torch.zeros((), dtype=like.dtype)
    lowest = torch.full((), torch.finfo(like.dtype).min, dtype=like.dtype)
    return torch.where(mask, zeros, lowest)

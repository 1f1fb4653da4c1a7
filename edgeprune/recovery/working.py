"""Copies of a graph made to run fast on a CPU: bfloat16 arithmetic, channels last, plain attention.

The copy for training shares its parameters with the graph it was made from: each is cast where
it is read, so autograd brings the gradient back to the float32 parameter and the optimiser never
sees bfloat16. The copy for inference casts its weights once and folds BatchNorm into convolutions.
"""

import operator
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, fx
from torch.fx import Node

from edgeprune.formats import ALL_DENSE, Formats
from edgeprune.graph.attention import additive_mask, attend, is_attention, plain_attention
from edgeprune.graph.folding import folded, norm_behind
from edgeprune.graph.ops import argument, is_constant, op_name
from edgeprune.graph.simulation import fake_quantise_weight, simulate
from edgeprune.recovery.features import return_also

Precision = Literal["f32", "bf16"]

# These take a float32 weight beside a bfloat16 input and keep it exact.
_MIXED = frozenset({"batch_norm", "layer_norm", "group_norm"})
_BATCH_NORM_TRAINING = 5
# Elements from which a table's dense gradient would cost more than the rest of a step's update.
_LARGE_TABLE = 1_000_000


def training_copy(
    module: fx.GraphModule,
    features: Sequence[str] = (),
    *,
    precision: Precision = "f32",
    batchnorm: bool = False,
    formats: Formats = ALL_DENSE,
) -> fx.GraphModule:
    """A trainable copy that shares its parameters and buffers with ``module``.

    Args:
        module: A captured or shrunk graph.
        features: Nodes to return behind the outputs.
        precision: Arithmetic inside; the outputs are float32 all the same.
        batchnorm: Whether BatchNorm normalises by the batch and updates its running statistics.
        formats: Layers by node name compute as these do; see :func:`simulate`.

    Raises:
        InputError: A format fits no layer.
    """
    copy = return_also(simulate(module, formats), features)
    outputs = len(copy.graph.output_node().args[0]) - len(features)  # type: ignore[arg-type]
    _sparse_gradients(copy)
    _channels_last_inputs(copy.graph)
    if batchnorm:
        _normalise_by_batch(copy.graph)
    if precision == "bf16":
        _plain_attention(copy.graph)
        _to_bfloat16(copy, outputs)
    copy.recompile()
    return copy


def inference_copy(
    module: fx.GraphModule, features: Sequence[str] = (), *, precision: Precision = "f32"
) -> fx.GraphModule:
    """A copy for ``no_grad`` with its own, prepared weights; see :func:`training_copy`."""
    copy = return_also(module, features)
    outputs = len(copy.graph.output_node().args[0]) - len(features)  # type: ignore[arg-type]
    _channels_last_inputs(copy.graph)
    _fold_batch_norm(copy, keep=set(features))
    if precision == "bf16":
        _to_bfloat16(copy, outputs)
        _cast_once(copy)
    copy.graph.eliminate_dead_code()
    copy.recompile()
    return copy


def lookup_tables(module: fx.GraphModule) -> frozenset[str]:
    """Large embedding tables that are only looked up: a step touches few of their rows."""
    return frozenset(
        str(node.target)
        for node in module.graph.nodes
        if node.op == "get_attr"
        and operator.attrgetter(str(node.target))(module).numel() >= _LARGE_TABLE
        and all(op_name(user) == "embedding" for user in node.users)
    )


def convolves(module: fx.GraphModule) -> bool:
    """Whether the graph holds a two-dimensional convolution."""
    return any(op_name(node) == "conv2d" for node in module.graph.nodes)


def set_layout(module: fx.GraphModule, memory_format: torch.memory_format) -> None:
    """Lay out the four-dimensional parameters in place, as the convolutions like them."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory_format)


def _sparse_gradients(module: fx.GraphModule) -> None:
    """Let large tables get gradients of the rows that were looked up only."""
    tables = lookup_tables(module)
    for node in module.graph.nodes:
        if op_name(node) == "embedding" and node.args[0].target in tables:
            padding = argument(node, 2, "padding_idx", -1)
            by_frequency = argument(node, 3, "scale_grad_by_freq", False)
            node.args = (*node.args[:2], padding, by_frequency, True)
            node.kwargs = {}


def _channels_last_inputs(graph: fx.Graph) -> None:
    if not any(op_name(node) == "conv2d" for node in graph.nodes):
        return
    for node in [n for n in graph.nodes if n.op == "placeholder"]:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point():
            _insert_behind(
                node, torch.ops.aten.contiguous.default, memory_format=torch.channels_last
            )


def _normalise_by_batch(graph: fx.Graph) -> None:
    """Let every BatchNorm see the batch, except those behind an emptied layer.

    Their input is one value a channel, the same in every batch, and its variance is not a number.
    """
    for node in graph.nodes:
        if op_name(node) == "batch_norm" and not is_constant(node):
            node.update_arg(_BATCH_NORM_TRAINING, True)


def _plain_attention(graph: fx.Graph) -> None:
    """Replace fused attention, except for the rarer forms: those compute in float32."""
    masks: dict[Node, Node] = {}
    for node in list(graph.nodes):
        if not is_attention(node):
            continue
        found = plain_attention(node)
        with graph.inserting_before(node):
            if found is None:
                wide = tuple(
                    graph.call_function(torch.Tensor.float, (a,)) if _is_float(a) else a
                    for a in node.args
                )
                fused = graph.call_function(node.target, wide, dict(node.kwargs))
                new = graph.call_function(torch.Tensor.type_as, (fused, node.args[0]))
            else:
                mask = found.mask
                if mask is not None:
                    if mask not in masks:
                        masks[mask] = graph.call_function(additive_mask, (mask, found.query))
                    mask = masks[mask]
                new = graph.call_function(
                    attend, (found.query, found.key, found.value, mask, found.scale)
                )
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        graph.erase_node(node)


def _to_bfloat16(module: fx.GraphModule, outputs: int) -> None:
    """Cast inputs and weights where they enter, every mentioned float32, and the outputs back."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.op == "placeholder":
            if _is_float(node):
                _insert_behind(node, torch.ops.aten.to.dtype, torch.bfloat16)
        elif node.op == "get_attr":
            if operator.attrgetter(str(node.target))(module).is_floating_point():
                _cast_for_users(node)
        elif node.op == "call_function":
            _mention_bfloat16(node)
    end = graph.output_node()
    returned = list(end.args[0])  # type: ignore[arg-type]
    with graph.inserting_before(end):
        for index in range(outputs):
            if _is_float(returned[index]):
                returned[index] = graph.call_function(torch.Tensor.float, (returned[index],))
    end.args = (tuple(returned),)


def _cast_for_users(weight: Node) -> None:
    """Cast a weight once for all users that want it.

    An embedding casts what it looked up, and steps of int8 are found in float32, for a weight that
    was rounded before would fall on others. A norm keeps its weight exact, but what it normalises
    may itself be stored: what an emptied layer gives.
    """
    cast: Node | None = None
    for user in list(weight.users):
        name = op_name(user)
        if name in _MIXED and user.args[0] is not weight:
            continue
        if name == "embedding" or user.target is fake_quantise_weight:
            _insert_behind(user, torch.ops.aten.to.dtype, torch.bfloat16)
            continue
        if cast is None:
            graph = weight.graph
            with graph.inserting_after(weight):
                cast = graph.call_function(torch.ops.aten.to.dtype, (weight, torch.bfloat16))
            cast.meta["val"] = weight.meta.get("val")
        user.replace_input_with(weight, cast)


def _mention_bfloat16(node: Node) -> None:
    def swap(value: Any) -> Any:
        return torch.bfloat16 if value is torch.float32 else value

    node.args = tuple(swap(value) for value in node.args)
    node.kwargs = {name: swap(value) for name, value in node.kwargs.items()}


def _cast_once(module: fx.GraphModule) -> None:
    """Replace casts of weights by buffers that hold the result."""
    for index, node in enumerate(list(module.graph.nodes)):
        if node.target is not torch.ops.aten.to.dtype or node.args[0].op != "get_attr":
            continue
        weight = operator.attrgetter(str(node.args[0].target))(module)
        _replace_by_buffer(module, node, f"prepared_{index}", weight.detach().to(node.args[1]))


def _fold_batch_norm(module: fx.GraphModule, keep: set[str]) -> None:
    """Fold each BatchNorm into the convolution before it, where nothing else reads that."""
    graph = module.graph
    for index, conv in enumerate(list(graph.nodes)):
        if op_name(conv) != "conv2d" or conv.name in keep or (norm := norm_behind(conv)) is None:
            continue
        stored = [a for a in (conv.args[1], argument(conv, 2, "bias")) if a is not None]
        if any(a.op != "get_attr" for a in stored):
            continue
        weight, *bias = (operator.attrgetter(str(a.target))(module) for a in stored)
        values = folded(module, weight, bias[0] if bias else None, norm)
        with graph.inserting_before(conv):
            read = [
                _new_buffer(module, f"folded_{index}_{name}", value)
                for name, value in zip(("weight", "bias"), values, strict=True)
            ]
        conv.args = (conv.args[0], *read, *conv.args[3:])
        norm.replace_all_uses_with(conv)
        graph.erase_node(norm)


def _new_buffer(module: fx.GraphModule, name: str, value: Tensor) -> Node:
    layout = torch.channels_last if value.dim() == 4 else torch.contiguous_format
    module.register_buffer(name, value.detach().contiguous(memory_format=layout))
    return module.graph.get_attr(name)


def _replace_by_buffer(module: fx.GraphModule, node: Node, name: str, value: Tensor) -> None:
    with module.graph.inserting_before(node):
        new = _new_buffer(module, name, value)
    node.replace_all_uses_with(new)
    module.graph.erase_node(node)


def _insert_behind(node: Node, target: Any, *args: Any, **kwargs: Any) -> None:
    """Let every present user of ``node`` read ``target(node, *args, **kwargs)`` instead."""
    users = list(node.users)
    with node.graph.inserting_after(node):
        new = node.graph.call_function(target, (node, *args), kwargs)
    new.meta["val"] = node.meta.get("val")
    for user in users:
        user.replace_input_with(node, new)


def _is_float(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return isinstance(value, Tensor) and value.is_floating_point()

"""Layers that multiply by a weight matrix, seen alike: rows of inputs, a matrix, a bias.

A linear layer and a convolution are both ``Y = X Wᵀ + b`` once the convolution's input is cut
into patches; second-order removal and refitting work on that form alone.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

aten = torch.ops.aten
_LINEAR = {aten.linear.default}
_CONV = {
    aten.conv1d.default: 1,
    aten.conv2d.default: 2,
    aten.conv2d.padding: 2,
    aten.conv1d.padding: 1,
}


@dataclass(frozen=True)
class WeightedLayer:
    """A graph node that multiplies its input by a stored weight.

    Attributes:
        node: The node, a linear layer or an ungrouped convolution.
        weight: Name of the weight, (out, in) or (out, in, *kernel).
        bias: Name of the bias, or None.
    """

    node: fx.Node
    weight: str
    bias: str | None

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name

    @property
    def convolution(self) -> bool:
        """Whether the layer slides a kernel over its input."""
        return self.node.target in _CONV

    def columns(self, weight: Tensor) -> int:
        """How many columns of the matrix one input channel has (the kernel's size)."""
        return int(weight[0, 0].numel()) if weight.dim() > 2 else 1

    def rows(self, value: Tensor, weight: Tensor, every: int = 1) -> Tensor:
        """The input as rows of the matrix product, of shape (positions, in * kernel).

        ``every`` keeps that share of a convolution's positions along each axis.
        """
        if not self.convolution:
            return value.reshape(-1, value.shape[-1])
        if value.dim() == 3:
            value, weight = value.unsqueeze(2), weight.unsqueeze(2)
        stride, padding, dilation = self.geometry(weight)
        stride = (stride[0] * every, stride[1] * every)
        patches = F.unfold(value, tuple(weight.shape[2:]), dilation, padding, stride)
        return patches.transpose(1, 2).reshape(-1, patches.shape[1])

    def flatten_output(self, value: Tensor, every: int = 1) -> Tensor:
        """An output-shaped value as rows, of shape (positions, out), at the same positions."""
        if not self.convolution:
            return value.reshape(-1, value.shape[-1])
        value = value[(slice(None), slice(None), *[slice(None, None, every)] * (value.dim() - 2))]
        return value.flatten(2).transpose(1, 2).reshape(-1, value.shape[1])

    def geometry(self, weight: Tensor) -> tuple[Any, Any, Any]:
        """Stride, padding and dilation of a convolution, a pair each."""
        kernel = weight.shape[2:]

        def pair(value: Any, default: int) -> tuple[int, int]:
            values = list(value) if isinstance(value, list | tuple) else [value or default]
            if len(values) == 1:
                values = values * _CONV[self.node.target]  # type: ignore[index]
            if len(values) == 1:
                values = [default, *values]
            return int(values[0]), int(values[1])

        arguments = [self.argument(i, name) for i, name in _GEOMETRY]
        stride, dilation = pair(arguments[0], 1), pair(arguments[2], 1)
        if isinstance(arguments[1], str):
            same = arguments[1] == "same"
            padding = tuple((k - 1) * d // 2 if same else 0 for k, d in zip(kernel, dilation))
            return stride, padding, dilation
        return stride, pair(arguments[1], 0), dilation

    def argument(self, index: int, name: str) -> Any:
        """A call argument by position or keyword, None where it is left out."""
        args = self.node.args
        return args[index] if len(args) > index else self.node.kwargs.get(name)


_GEOMETRY = ((3, "stride"), (4, "padding"), (5, "dilation"))


def weighted_layer(node: fx.Node) -> WeightedLayer | None:
    """The layer that ``node`` computes, or None where it is none of those understood here.

    Grouped and "same"-padded even convolutions are left out: their product has no single matrix.
    """
    if node.op != "call_function" or node.target not in (*_LINEAR, *_CONV):
        return None
    weight = node.args[1] if len(node.args) > 1 else None
    bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return None
    if bias is not None and not (isinstance(bias, fx.Node) and bias.op == "get_attr"):
        return None
    layer = WeightedLayer(node, str(weight.target), None if bias is None else str(bias.target))
    groups = layer.argument(6, "groups")
    return layer if groups in (None, 1) else None


def weighted_layers(module: fx.GraphModule) -> dict[str, WeightedLayer]:
    """All such layers of a graph by node name, in execution order."""
    found = (weighted_layer(node) for node in module.graph.nodes)
    return {layer.name: layer for layer in found if layer is not None}


def store(state: MutableMapping[str, Tensor], layer: WeightedLayer, matrix: Tensor) -> None:
    """Write a (out, in * kernel) matrix back in the weight's own shape."""
    old = state[layer.weight]
    state[layer.weight] = matrix.reshape(old.shape).to(old.dtype)

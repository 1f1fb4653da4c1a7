"""Low-precision layers computed in float, so that a network can be judged and trained as stored.

Values are rounded to those that the precision can hold and stay floats (fake quantisation). The
gradient passes the rounding as if it were not there: the straight-through estimator of Bengio,
Léonard and Courville (2013), on which quantisation-aware training rests (Jacob et al., 2018).
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import Node

from edgeprune.errors import InputError
from edgeprune.formats import DENSE, Format, Formats
from edgeprune.graph.ops import op_name

Rounding = Callable[[Tensor], Tensor]

# Their weight is argument 1, of shape (outputs, ...).
_LAYERS = frozenset({"linear", "conv1d", "conv2d", "conv3d"})
_LARGEST = 127
_SMALLEST_BYTE, _LARGEST_BYTE, _BYTE_STEPS = -128, 127, 255


def fake_quantise_weight(weight: Tensor) -> Tensor:
    """Round to int8, symmetrically with a scale for each output; NaN takes its whole output.

    These are the values of :func:`edgeprune.kernels.packing.quantise`. A positive factor on an
    output is a factor on its rounded weights: BatchNorm may be folded before or after.

    Args:
        weight: Shape (outputs, ...).
    """
    return _straight_through(weight, _int8_by_output)


def fake_quantise_rows(x: Tensor) -> Tensor:
    """Round to int8 as the sparse kernels do where every row finds its own scale.

    Args:
        x: Shape (..., inputs); a row with a value that is not finite becomes NaN.
    """
    return _straight_through(x, _int8_by_row)


def fake_quantise_tensor(x: Tensor) -> Tensor:
    """Round to 256 even steps from the smallest value to the largest, zero being one of them.

    It stands for a runtime's own quantisation of activations, whose range comes from calibration:
    here it is that of the batch.
    """
    return _straight_through(x, _byte_by_tensor)


def round_to_bfloat16(x: Tensor) -> Tensor:
    """Round to the nearest bfloat16 and keep the type."""
    return _straight_through(x, _bfloat16)


def simulate(module: fx.GraphModule, formats: Formats) -> fx.GraphModule:
    """A copy that shares parameters and buffers, with layers that compute as their formats do.

    Layers in int8 and in sparse bfloat16 read inputs and weight through a rounding; layers that
    read the same input in the same way share it. Other formats change no value.

    Args:
        module: A captured or shrunk graph.
        formats: Of layers by node name; nodes keep their names.

    Raises:
        InputError: A format is of a node that is no linear or convolution layer of the graph, or
            of one without a stored weight.
    """
    graph = copy.deepcopy(module.graph)
    inserted: dict[tuple[Node, Rounding], Node] = {}
    for layer, format_ in formatted_layers(graph, formats).items():
        for index, rounding in enumerate(roundings(layer, format_)):
            source = layer.args[index]
            assert isinstance(source, Node)
            if (source, rounding) not in inserted:
                with graph.inserting_after(source):
                    new = graph.call_function(rounding, (source,))
                new.meta["val"] = source.meta.get("val")
                inserted[source, rounding] = new
            layer.update_arg(index, inserted[source, rounding])
    return fx.GraphModule(module, graph)


def formatted_layers(graph: fx.Graph, formats: Formats) -> dict[Node, Format]:
    """The layers whose format is not simply dense, in graph order; see :func:`simulate`.

    Raises:
        InputError: See :func:`simulate`.
    """
    found = {
        node: formats[node.name]
        for node in graph.nodes
        if op_name(node) in _LAYERS and formats.get(node.name, DENSE) != DENSE
    }
    wanted = {name for name, format_ in formats.items() if format_ != DENSE}
    for name in sorted(wanted - {node.name for node in found}):
        raise InputError(
            f"'{name}' has the format {formats[name]}, but is no linear or convolution layer of "
            "the graph; leave it out"
        )
    for node in found:
        weight_name(node)
    return found


def weight_name(layer: Node) -> str:
    """Under which a linear or convolution layer's module holds its weight.

    Raises:
        InputError: The layer computes its weight.
    """
    weight = layer.args[1]
    if isinstance(weight, Node) and weight.op == "get_attr":
        return str(weight.target)
    raise InputError(f"layer '{layer.name}' computes its weight, so it has no format; leave it out")


def roundings(layer: Node, format_: Format) -> tuple[Rounding, ...]:
    """What a layer's input and weight pass through; nothing where a format rounds nothing."""
    if format_.precision == "int8":
        by_row = format_.sparse and op_name(layer) == "linear"
        return (fake_quantise_rows if by_row else fake_quantise_tensor), fake_quantise_weight
    if format_.precision == "bf16" and format_.sparse:
        return round_to_bfloat16, round_to_bfloat16
    return ()


class _StraightThrough(torch.autograd.Function):
    """A rounding whose gradient is that of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rounding: Rounding) -> Tensor:
        return rounding(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _straight_through(x: Tensor, rounding: Rounding) -> Tensor:
    rounded: Tensor = _StraightThrough.apply(x, rounding)  # type: ignore[no-untyped-call]
    return rounded


# All of these round ties to even and compute in float32, whatever comes in: in bfloat16 the
# quotient would already be rounded to whole steps, wrongly.


def _int8_by_output(weight: Tensor) -> Tensor:
    values = weight.float()
    scale = _usable(_largest(values, tuple(range(1, values.dim()))) / _LARGEST)
    return (values / scale).round_().clamp_(-_LARGEST, _LARGEST).mul_(scale).to(weight.dtype)


def _int8_by_row(x: Tensor) -> Tensor:
    values = x.float()
    scale = _usable(_largest(values, (-1,)) / _LARGEST)
    # The kernels multiply by the inverse, which is not always what a division gives.
    inverse = (1.0 / scale).clamp(max=torch.finfo(torch.float32).max)
    steps = (values * inverse).round_().clamp_(_SMALLEST_BYTE, _LARGEST_BYTE)
    return steps.mul_(scale).to(x.dtype)


def _byte_by_tensor(x: Tensor) -> Tensor:
    values = x.float()
    low, high = torch.aminmax(_as_stored(values))
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = _usable((high - low) / _BYTE_STEPS)
    # A number of Python, for a clamp by tensors takes three times as long.
    zero_point = float((-low / scale).round())
    steps = (values / scale).round_().clamp_(-zero_point, _BYTE_STEPS - zero_point)
    return steps.mul_(scale).to(x.dtype)


def _bfloat16(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16).to(x.dtype)


def _largest(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The greatest absolute value; two readings take half as long as writing all of them."""
    return torch.maximum(values.amax(dims, keepdim=True), -values.amin(dims, keepdim=True))


def _as_stored(values: Tensor) -> Tensor:
    """The dimensions in the order of memory; a reduction over others copies them first."""
    strides = values.stride()
    return values.permute(sorted(range(values.dim()), key=lambda d: -strides[d]))


def _usable(scale: Tensor) -> Tensor:
    """With 1 where everything is zero; NaN stays."""
    return torch.where(scale == 0, 1.0, scale)

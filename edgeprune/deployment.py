"""From a graph and its layers' formats to the artifact that a runtime opens."""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from pathlib import Path

import torch
from torch import Tensor, fx

from edgeprune.atomic import atomic_path
from edgeprune.formats import DENSE_INT8, Format, Formats
from edgeprune.graph.folding import folded, norm_behind
from edgeprune.graph.layers import WeightedLayer, weighted_layers
from edgeprune.graph.onnx_attention import with_plain_attention
from edgeprune.graph.onnx_export import export_onnx
from edgeprune.graph.sites import fused_activation, layer_behind
from edgeprune.kernels.convolution import SparseConvolution
from edgeprune.kernels.layers import SparseLinear
from edgeprune.kernels.onnx_rewrite import Replacement, put_sparse_layers
from edgeprune.kernels.packed import PackedWeight, pack
from edgeprune.runtimes.base import Arrays, Runtime

_SPARSE_ONNX = "sparse.onnx"


def write_artifact(
    module: fx.GraphModule,
    formats: Formats,
    example_inputs: Sequence[Tensor],
    onnx: Path,
    out: Path,
    runtime: Runtime,
    samples: Iterable[Arrays] = (),
) -> Path:
    """Export a graph and make the artifact in which every layer has its format.

    Args:
        module: Its weights hold the zeros of sparse formats.
        formats: By layer; layers that the graph does not have any more are passed over.
        example_inputs: At the deployed shapes.
        onnx: Where the ONNX file goes, which stands alone: zeros and all, in float32.
        out: The artifact.
        runtime: What opens it.
        samples: Inputs at the deployed shapes, for the ranges of dense int8 layers.

    Returns:
        The path to open.

    Raises:
        InputError: An operator has no form in ONNX or the runtime.
        UnavailableError: The formats need something that is not installed.
        WorkspaceError: The disk is full, or the folder cannot be written.
    """
    module = with_plain_attention(module)
    export_onnx(module, example_inputs, onnx)
    replacements = sparse_layers(module, formats)
    source = onnx
    if replacements:
        source = out.with_name(_SPARSE_ONNX)
        _write_sparse(onnx, replacements, source)
    quantised = [name for name in weighted_layers(module) if formats.get(name) == DENSE_INT8]
    try:
        if quantised:
            return runtime.quantise_int8(source, out, samples, quantised)
        return runtime.convert(source, out)
    finally:
        if source != onnx:
            source.unlink(missing_ok=True)


def sparse_layers(module: fx.GraphModule, formats: Formats) -> list[Replacement]:
    """What runs the sparse layers of a graph: each alone, or two linear ones in a row as one."""
    layers = {
        name: layer
        for name, layer in weighted_layers(module).items()
        if name in formats and formats[name].sparse
    }
    done: set[str] = set()
    found = []
    for name, layer in layers.items():
        if name in done:
            continue
        if layer.convolution:
            found.append(_convolution(module, layer, formats[name]))
            continue
        following = layer_behind(layer.node)
        row = [name, following] if following in layers else [name]
        done.update(row)
        scopes, packed = [], []
        for member in row:
            activation, node = fused_activation(layers[member].node)
            scopes += [member, *([node.name] if node is not None else [])]
            packed.append(_packed(module, layers[member], formats[member], activation))
        found.append(Replacement(tuple(scopes), tuple(packed)))
    return found


@torch.no_grad()
def _packed(
    module: fx.GraphModule, layer: WeightedLayer, format_: Format, activation: str
) -> SparseLinear:
    weight, bias = _parameters(module, layer)
    return SparseLinear(_pack(weight, format_), bias.numpy(), activation)


@torch.no_grad()
def _convolution(module: fx.GraphModule, layer: WeightedLayer, format_: Format) -> Replacement:
    """A convolution with the normalisation and the activation that alone read it."""
    weight, bias = _parameters(module, layer)
    stride, padding, dilation = layer.geometry(weight)
    norm = norm_behind(layer.node)
    if norm is not None:
        weight, bias = folded(module, weight, bias, norm)
    activation, node = fused_activation(norm or layer.node)
    convolution = SparseConvolution(
        _pack(weight, format_),
        bias.detach().numpy(),
        kernel=(weight.shape[2], weight.shape[3]),
        stride=stride,
        padding=padding,
        dilation=dilation,
        activation=activation,
    )
    scopes = (layer.name, *([node.name] if node is not None else []))
    return Replacement(scopes, convolution, (norm.name,) if norm is not None else ())


def _parameters(module: fx.GraphModule, layer: WeightedLayer) -> tuple[Tensor, Tensor]:
    """Weight and bias, zeros where there is none."""
    weight = attrgetter(layer.weight)(module).detach().float()
    if layer.bias is None:
        return weight, torch.zeros(len(weight))
    return weight, attrgetter(layer.bias)(module).detach().float()


def _pack(weight: Tensor, format_: Format) -> PackedWeight:
    fitted = format_.fitted(len(weight))
    assert fitted.block is not None and fitted.precision != "default"
    return pack(weight.flatten(1), fitted.block, fitted.precision)


def _write_sparse(dense: Path, replacements: Sequence[Replacement], path: Path) -> None:
    import onnx

    model = onnx.load(dense)
    put_sparse_layers(model, replacements)
    with atomic_path(path) as partial:
        onnx.save(model, partial)

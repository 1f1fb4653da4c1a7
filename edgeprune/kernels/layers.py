"""Linear layers with packed weights, alone or one behind the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.errors import InputError
from edgeprune.kernels import library
from edgeprune.kernels.packed import Floats, Matrix, PackedWeight

if TYPE_CHECKING:
    from edgeprune.kernels.convolution import SparseConvolution

_MOST_ROWS = 1 << 30


@dataclass(frozen=True)
class SparseLinear:
    """``activation(x W^T + bias)``.

    Attributes:
        weight: Packed.
        bias: Shape (outputs,); zeros where there is none.
        activation: ``none``, ``relu``, ``gelu`` or ``silu``.
        scale: Of int8 activations; 0 where every row finds its own.
        zero_point: The byte that stands for zero, with a given scale.

    Raises:
        InputError: A value that does not fit.
    """

    weight: PackedWeight
    bias: Floats
    activation: str = "none"
    scale: float = 0.0
    zero_point: int = 128

    def __post_init__(self) -> None:
        check_settings(self)


def check_settings(layer: "SparseLinear | SparseConvolution") -> None:
    """Check what linear layers and convolutions have in common.

    Raises:
        InputError: A value that does not fit.
    """
    if layer.activation not in library.ACTIVATIONS:
        names = ", ".join(library.ACTIVATIONS)
        raise InputError(f"activation '{layer.activation}' is unknown; use one of {names}")
    if not layer.scale >= 0:
        raise InputError(f"scale is {layer.scale}; it has to be above 0")
    if not 0 <= layer.zero_point <= 255:
        raise InputError(f"zero point is {layer.zero_point}; it is a byte")
    if np.shape(layer.bias) != (layer.weight.outputs,):
        raise InputError(f"bias has shape {np.shape(layer.bias)}, not ({layer.weight.outputs},)")


def multiply_layers(
    layers: Sequence[SparseLinear],
    x: Matrix,
    *,
    isa: str | None = None,
    parts: int = 1,
    out: Floats | None = None,
) -> Floats:
    """Apply layers one behind the other, on the calling thread.

    Args:
        layers: At least one; each takes what the one before makes.
        x: Shape (..., inputs); float32.
        isa: One of :func:`instruction_sets`; by default the best.
        parts: Cut the work as that many threads would; the result is the same.
        out: Written to and returned; shape (..., outputs), contiguous.

    Raises:
        InputError: Shapes do not fit, or the processor lacks the instruction set.
    """
    values = np.asarray(x, np.float32)
    width = values.shape[-1] if values.ndim else 0
    for layer in layers:
        if layer.weight.inputs != width:
            raise InputError(
                f"x has shape {values.shape}, and a weight that is given {width} "
                f"columns takes {layer.weight.inputs} columns"
            )
        width = layer.weight.outputs
    rows = np.ascontiguousarray(values.reshape(-1, layers[0].weight.inputs))
    shape = (*values.shape[:-1], width)
    result = result_array(shape, out)
    if len(rows) > _MOST_ROWS:
        raise InputError(f"x has {len(rows)} rows; at most {_MOST_ROWS} are multiplied at once")
    biases = [np.ascontiguousarray(layer.bias, np.float32) for layer in layers]
    chain = (library.ProductLayer * len(layers))(
        *(product_layer(*pair, isa) for pair in zip(layers, biases, strict=True))
    )
    problem = library.library().edgeprune_multiply(
        *(chain, len(layers), rows.ctypes.data, len(rows), result.ctypes.data, parts)
    )
    if problem:
        raise InputError(f"the product cannot be computed: {problem.decode()}")
    return result


def product_layer(
    layer: "SparseLinear | SparseConvolution", bias: Floats, isa: str | None
) -> library.ProductLayer:
    """A layer as the library takes it; ``bias`` has to live as long."""
    return library.ProductLayer(
        layer.weight.handle(isa or ""),
        bias.ctypes.data,
        library.ACTIVATIONS[layer.activation],
        layer.scale,
        layer.zero_point,
    )


def result_array(shape: tuple[int, ...], out: Floats | None) -> Floats:
    """What a product is written to.

    Raises:
        InputError: ``out`` does not fit.
    """
    result = np.empty(shape, np.float32) if out is None else out
    usable = result.flags.c_contiguous and result.flags.writeable
    if result.shape != shape or result.dtype != np.float32 or not usable:
        raise InputError(f"out has to be a contiguous, writeable float32 array of shape {shape}")
    return result

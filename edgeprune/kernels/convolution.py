"""Convolutions with packed weights, on images as torch has them."""

import ctypes
from dataclasses import dataclass

import numpy as np

from edgeprune.errors import InputError
from edgeprune.kernels import library
from edgeprune.kernels.layers import check_settings, product_layer, result_array
from edgeprune.kernels.packed import Floats, Matrix, PackedWeight
from edgeprune.kernels.packing import block_name

Pair = tuple[int, int]

_MOST = 1 << 16
_WIDEST_BLOCK = 4


@dataclass(frozen=True)
class SparseConvolution:
    """``activation(conv2d(x, W) + bias)``.

    Pairs are vertical, then horizontal.

    Attributes:
        weight: Packed from ``weight.flatten(1)`` of a weight of shape (outputs, channels, *kernel),
            in blocks of 4x1 or 1x1.
        bias: Shape (outputs,); zeros where there is none.
        kernel: Size of the kernel.
        stride: Of the positions.
        padding: Zeros on both sides of an image.
        dilation: Of the kernel.
        activation: ``none``, ``relu``, ``gelu`` or ``silu``.
        scale: Of int8 activations; 0 where every position of the output finds its own.
        zero_point: The byte that stands for zero, with a given scale.

    Raises:
        InputError: A value that does not fit.
    """

    weight: PackedWeight
    bias: Floats
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    activation: str = "none"
    scale: float = 0.0
    zero_point: int = 128

    def __post_init__(self) -> None:
        check_settings(self)
        for name, least in (("kernel", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            pair = getattr(self, name)
            if len(pair) != 2 or not all(least <= value <= _MOST for value in pair):
                raise InputError(f"{name} is {pair}; it is two numbers from {least} to {_MOST}")
        if self.weight.block[0] > _WIDEST_BLOCK:
            raise InputError(
                f"a convolution has no kernel for blocks of {block_name(self.weight.block)}; "
                "pack its weight in 4x1 or 1x1"
            )
        if self.weight.inputs % (self.kernel[0] * self.kernel[1]):
            raise InputError(
                f"the weight has {self.weight.inputs} inputs, no multiple of a kernel of "
                f"{self.kernel[0]}x{self.kernel[1]}"
            )

    @property
    def channels(self) -> int:
        """Of the input."""
        return int(self.weight.inputs // (self.kernel[0] * self.kernel[1]))

    def output_size(self, size: Pair) -> Pair:
        """Rows and columns of the output for images of ``size``.

        Raises:
            InputError: The kernel is larger than the padded image.
        """
        made = [
            (size[i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1)
            // self.stride[i]
            + 1
            for i in range(2)
        ]
        if min(made) < 1 or min(size) < 1:
            raise InputError(f"the kernel is larger than a padded image of {size[0]}x{size[1]}")
        return made[0], made[1]


def convolve(
    layer: SparseConvolution,
    x: Matrix,
    *,
    isa: str | None = None,
    parts: int = 1,
    out: Floats | None = None,
) -> Floats:
    """Apply a convolution on the calling thread.

    Args:
        layer: What to apply.
        x: Shape (images, channels, rows, columns); float32.
        isa: One of :func:`instruction_sets`; by default the best.
        parts: Cut the work as that many threads would; the result is the same.
        out: Written to and returned; shape (images, outputs, rows, columns), contiguous.

    Raises:
        InputError: Shapes do not fit, or the processor lacks the instruction set.
    """
    images = np.ascontiguousarray(x, np.float32)
    if images.ndim != 4 or images.shape[1] != layer.channels:
        raise InputError(
            f"x has shape {images.shape}; the convolution takes (images, {layer.channels}, rows, "
            "columns)"
        )
    size = (images.shape[2], images.shape[3])
    shape = (len(images), layer.weight.outputs, *layer.output_size(size))
    result = result_array(shape, out)
    bias = np.ascontiguousarray(layer.bias, np.float32)
    window = library.Window(
        layer.channels, size, layer.kernel, layer.stride, layer.padding, layer.dilation
    )
    problem = library.library().edgeprune_convolve(
        *(ctypes.byref(product_layer(layer, bias, isa)), ctypes.byref(window)),
        *(images.ctypes.data, len(images), result.ctypes.data, parts),
    )
    if problem:
        raise InputError(f"the convolution cannot be computed: {problem.decode()}")
    return result

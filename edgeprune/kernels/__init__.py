"""Block-sparse matrix products for processors: y = activation(x W^T + bias).

``pack`` turns a NumPy or torch weight into the compact form of the kernels, which are C++ under
``native/``; ``PackedWeight.multiply`` multiplies with it, ``multiply_layers`` with several of them,
and ``convolve`` applies one to images.
"""

from edgeprune.kernels.convolution import SparseConvolution, convolve
from edgeprune.kernels.layers import SparseLinear, multiply_layers
from edgeprune.kernels.library import instruction_sets
from edgeprune.kernels.packed import PackedWeight, pack
from edgeprune.kernels.packing import BLOCKS

__all__ = [
    "BLOCKS",
    "PackedWeight",
    "SparseConvolution",
    "SparseLinear",
    "convolve",
    "instruction_sets",
    "multiply_layers",
    "pack",
]

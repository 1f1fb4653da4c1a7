"""Block-sparse matrix products for processors: y = activation(x W^T + bias).

``pack`` turns a NumPy or torch weight into the kernels' compact form, ``PackedWeight.multiply``
multiplies with it. The kernels are C++ under ``native/``.
"""

from edgeprune.kernels.library import instruction_sets
from edgeprune.kernels.packed import PackedWeight, pack
from edgeprune.kernels.packing import BLOCKS

__all__ = ["BLOCKS", "PackedWeight", "instruction_sets", "pack"]

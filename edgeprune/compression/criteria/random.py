"""Removal in random order: what any other criterion must beat."""

import zlib

import numpy as np
import numpy.typing as npt

from edgeprune.compression.criteria.context import CriterionContext
from edgeprune.graph.structure import Structure


class Random:
    """An order drawn for each structure from the seed and the structure's name."""

    name = "random"
    needs_gradients = False

    def order(self, structure: Structure, context: CriterionContext) -> npt.NDArray[np.int64]:
        """Unit indices, the first to be removed first."""
        rng = np.random.default_rng([context.seed, zlib.crc32(structure.name.encode())])
        return rng.permutation(structure.units).astype(np.int64)

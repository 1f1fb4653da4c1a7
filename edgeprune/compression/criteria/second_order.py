"""Order of removal by the second-order loss at the layers that consume a unit."""

import numpy as np
import numpy.typing as npt

from edgeprune.compression.consumers import consumers
from edgeprune.compression.criteria.context import CriterionContext
from edgeprune.compression.criteria.magnitude import Magnitude
from edgeprune.compression.second_order import removal_order
from edgeprune.graph.layers import weighted_layers
from edgeprune.graph.structure import Structure


class SecondOrder:
    """Optimal Brain Surgeon on groups of columns (see ``compression.second_order``).

    Structures that no plain matrix product consumes fall back to magnitude.
    """

    name = "second_order"
    needs_gradients = False

    def order(self, structure: Structure, context: CriterionContext) -> npt.NDArray[np.int64]:
        """Unit indices, the first to be removed first."""
        layers = weighted_layers(context.network.captured.module)
        found = consumers(structure, layers, context.state, context.grams)
        if not found:
            return Magnitude().order(structure, context)
        return removal_order(found, structure.units, context.damping)

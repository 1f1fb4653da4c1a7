"""Order of removal by the first-order change of the loss."""

import numpy as np
import numpy.typing as npt

from edgeprune.compression.criteria.context import CriterionContext
from edgeprune.compression.criteria.units import unit_sums
from edgeprune.errors import EdgepruneError
from edgeprune.graph.structure import Structure


class Taylor:
    """The smallest squared first-order effect of setting the unit to zero goes first.

    The effect is the sum of weight times gradient over the parameters that produce the unit
    (Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, eq. 8).
    Where no parameter produces it, those that consume it stand in: with a ReLU or nothing between
    the two, both sums are the same.
    """

    name = "taylor"
    needs_gradients = True

    def order(self, structure: Structure, context: CriterionContext) -> npt.NDArray[np.int64]:
        """Unit indices, the first to be removed first; equals in the order of their index.

        Raises:
            EdgepruneError: The context holds no gradients.
        """
        if context.gradients is None:
            raise EdgepruneError("the criterion 'taylor' needs gradients, the context has none")
        producing = [slot for slot in structure.slots if slot.role != "input"]
        known = [slot for slot in producing if slot.tensor in context.gradients]
        if not any(slot.role == "output" for slot in known):
            known = [slot for slot in structure.inputs() if slot.tensor in context.gradients]
        effect = np.zeros(structure.units)
        for slot in known:
            product = context.state[slot.tensor].detach() * context.gradients[slot.tensor]
            effect += unit_sums(slot, product, structure.units)
        return np.argsort(np.square(effect), kind="stable").astype(np.int64)

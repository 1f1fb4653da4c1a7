"""Order of removal by the size of a unit's weights."""

import numpy as np
import numpy.typing as npt

from edgeprune.compression.criteria.context import CriterionContext
from edgeprune.compression.criteria.units import unit_sums
from edgeprune.graph.structure import Structure


class Magnitude:
    """The smallest squared norm goes first.

    Summed over all weights that produce or consume the unit, each taken relative to its whole
    tensor, so that layers of different scale have an equal say: the group norm of DepGraph
    (Fang et al., CVPR 2023) on the filter norms of Li et al. (ICLR 2017).
    """

    name = "magnitude"
    needs_gradients = False

    def order(self, structure: Structure, context: CriterionContext) -> npt.NDArray[np.int64]:
        """Unit indices, the first to be removed first; equals in the order of their index."""
        slots = [slot for slot in structure.slots if slot.role != "vector"] or structure.slots
        if structure.router() is not None:
            slots = structure.slots  # an expert's weights go along with its row of the router
        scores = np.zeros(structure.units)
        for slot in slots:
            squares = context.state[slot.tensor].detach().double().square()
            total = float(squares.sum())
            if total > 0:
                scores += unit_sums(slot, squares, structure.units) / total
        return np.argsort(scores, kind="stable").astype(np.int64)

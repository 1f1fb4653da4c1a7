"""Sums over the entries of a tensor that belong to each unit of a structure."""

import numpy as np
import numpy.typing as npt
from torch import Tensor

from edgeprune.graph.structure import Slot


def unit_sums(slot: Slot, values: Tensor, units: int) -> npt.NDArray[np.float64]:
    """The sum of ``values`` over the positions of each unit.

    Args:
        slot: Where the units live.
        values: Of the shape of the slot's tensor.
        units: How many units there are.

    Returns:
        float64 of shape ``(units,)``.
    """
    others = [dim for dim in range(values.dim()) if dim != slot.dim]
    flat = values.detach().double()
    sums = (flat.sum(dim=others) if others else flat).cpu().numpy()
    inside = slot.unit >= 0
    found = np.bincount(slot.unit[inside], weights=sums[inside], minlength=units)
    return np.asarray(found, dtype=np.float64)

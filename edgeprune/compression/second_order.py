"""Second-order removal of groups of input columns with compensation of the rest.

The loss of removing columns S of a weight W whose inputs have the Gram matrix H is
``tr(W_S (H⁻¹_SS)⁻¹ W_Sᵀ)`` and the best remaining weights follow in closed form: the Optimal
Brain Surgeon (Hassibi and Stork, 1993) on groups of columns, as in ZipLM (Kurtic et al., 2023,
eq. 2 and 3). Removing greedily and updating ``H⁻¹`` gives every level in one pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgeprune.compression.positive_definite import cholesky, damped

# Removing a few of very many units at a time costs nothing measurable and bounds the pass.
_STEPS = 256


@dataclass(frozen=True)
class Consumer:
    """A layer through which units are consumed.

    Attributes:
        matrix: float (out, columns), the layer's weight as a matrix.
        gram: float64 (columns, columns), the mean Gram matrix of the layer's input.
        unit: int (columns,), the unit that each column belongs to, -1 for none.
    """

    matrix: Tensor
    gram: Tensor
    unit: npt.NDArray[np.int32]


def removal_order(
    consumers: Sequence[Consumer], units: int, damping: float = 1e-3
) -> npt.NDArray[np.int64]:
    """The units in the order in which they should go, the least important first.

    Each consumer's loss is taken relative to its whole output, so that layers of different
    scale have an equal say.
    """
    states = [_Surgeon(consumer, units, damping) for consumer in consumers]
    alive = torch.ones(units, dtype=torch.bool)
    order: list[int] = []
    step = max(1, units // _STEPS)
    while len(order) < units:
        loss = torch.stack([state.losses(alive) for state in states]).sum(0)
        loss[~alive] = torch.inf
        count = min(step, units - len(order))
        chosen = torch.topk(loss, count, largest=False).indices
        order.extend(chosen.tolist())
        alive[chosen] = False
        for state in states:
            state.remove(chosen)
    return np.asarray(order, dtype=np.int64)


def compensate(
    matrix: Tensor, gram: Tensor, kept: npt.NDArray[np.bool_], damping: float = 1e-3
) -> Tensor:
    """The weights of the kept columns that best reproduce the whole product.

    Args:
        matrix: (out, columns).
        gram: (columns, columns) of the layer's input.
        kept: bool (columns,).

    Returns:
        (out, columns) with zeros in the columns that went; of the matrix's dtype.
    """
    result = torch.zeros_like(matrix)
    index = torch.from_numpy(np.flatnonzero(kept))
    if len(index) == 0:
        return result
    full = damped(gram, damping)
    target = matrix.double() @ full[:, index]
    factor = cholesky(full[index][:, index])
    result[:, index] = torch.cholesky_solve(target.T, factor).T.to(matrix.dtype)
    return result


class _Surgeon:
    """One consumer's weights and inverse Gram matrix as units leave."""

    def __init__(self, consumer: Consumer, units: int, damping: float) -> None:
        full = damped(consumer.gram, damping)
        # The pass reads these matrices once a removal; float32 halves the traffic and its
        # rounding is far below the damping.
        self.inverse = torch.cholesky_inverse(cholesky(full)).float()
        self.matrix = consumer.matrix.detach().float().clone()
        matrix = self.matrix.double()
        scale = ((matrix @ consumer.gram.double()) * matrix).sum()
        self.scale = float(scale.clamp_min(1e-30))
        columns = [np.flatnonzero(consumer.unit == unit) for unit in range(units)]
        self.width = len(columns[0])
        self.columns = torch.from_numpy(np.stack(columns))

    def losses(self, alive: Tensor) -> Tensor:
        """The loss of removing each unit next, (units,), relative to the layer's output."""
        if self.width == 1:
            column = self.columns[:, 0]
            diagonal = self.inverse.diagonal()[column].clamp_min(1e-30)
            return self.matrix[:, column].square().sum(0) / diagonal / self.scale
        losses = torch.full((len(self.columns),), torch.inf)
        index = self.columns[alive]
        blocks = self.inverse[index[:, :, None], index[:, None, :]]
        weights = self.matrix[:, index].permute(1, 2, 0)
        solved = torch.linalg.solve(blocks, weights)
        losses[alive] = (solved * weights).sum((1, 2)) / self.scale
        return losses

    def remove(self, units: Tensor) -> None:
        """Take ``units`` out and let the others make up for them."""
        gone = self.columns[units].reshape(-1)
        block = self.inverse[gone][:, gone]
        rows = torch.linalg.solve(block, self.inverse[gone])
        self.matrix -= self.matrix[:, gone] @ rows
        self.inverse -= self.inverse[:, gone] @ rows
        self.matrix[:, gone] = 0

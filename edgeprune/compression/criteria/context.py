"""What a criterion may look at."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from edgeprune.graph.network import Network


@dataclass(frozen=True, eq=False)
class CriterionContext:
    """The dense network and what calibration found out about it.

    Attributes:
        network: The captured network with its structures.
        state: Parameters and buffers of full size, by qualified name.
        grams: Mean Gram matrix of each consuming layer's input, by layer name.
        gradients: Gradient of a loss with respect to each parameter, by qualified name; None
            when the criterion did not ask for it.
        seed: For criteria that draw at random.
        damping: Relative ridge of the Gram matrices.
    """

    network: Network
    state: Mapping[str, Tensor]
    grams: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor] | None
    seed: int = 0
    damping: float = 1e-3

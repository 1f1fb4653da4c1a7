"""Networks analysed once, and choices of what is left of them."""

from functools import lru_cache

import networks
from torch import Tensor, nn

from edgeprune.graph.capture import capture
from edgeprune.graph.network import Network, analyse

# Whose own forward runs at any sizes, as long as something is left of each structure.
EXPRESSIBLE = (
    "encoder",
    "eager_encoder",
    "constants_among_features",
    "low_rank_update",
    "stacked_experts",
    "token_mixing",
    "unknown_operator",
)


@lru_cache
def prepared(name: str) -> tuple[nn.Module, tuple[Tensor, ...], Network]:
    model, inputs = networks.CASES[name]()
    return model, inputs, analyse(capture(model, inputs))


def analysed(model: nn.Module, *inputs: Tensor) -> Network:
    return analyse(capture(model.eval(), inputs))


def half(network: Network) -> dict[str, list[int]]:
    """The second half of every structure: not its leading entries."""
    return {n: list(range(s.units // 2, s.units)) for n, s in network.structures.items()}

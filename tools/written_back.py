"""Whether a case's own module, with the sizes and weights of its pruned network, is equal to it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from masked_reference import flat, other_inputs, worst_difference
from torch import Tensor, nn

from edgeprune.errors import StructureError
from edgeprune.graph.network import Network
from edgeprune.graph.write_back.reload import resize
from edgeprune.graph.write_back.write import write_back

_TOLERANCE = 1e-4

Build = Callable[[], tuple[nn.Module, Sequence[Tensor]]]


def written_back_outcome(
    build: Build, network: Network, keep: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """The columns ``own_module`` (``equal`` or why not) and ``own_sizes``, the attributes found.

    Equal means at the example inputs and at others that write_back does not use, and again in a
    fresh module that was resized and loaded the state dict.
    """
    model, inputs = build()
    pruned = network.shrink(keep)
    try:
        sizes = write_back(model, network, keep, pruned)
    except StructureError as error:
        return {"own_module": str(error), "own_sizes": 0}
    fresh, _ = build()
    resize(fresh, sizes)
    fresh.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(7)
    worst = 0.0
    for tried in (inputs, other_inputs(inputs, generator)):
        with torch.no_grad():
            want = flat(pruned(*(x.clone() for x in tried)))
            for module in (model, fresh):
                have = flat(module(*(x.clone() for x in tried)))
                worst = max(worst, worst_difference(have, want))
    equal = worst <= _TOLERANCE
    return {
        "own_module": "equal" if equal else f"differs by {worst:.1e} of the output's scale",
        "own_sizes": len({name for found in sizes.own.values() for name in found}),
    }

"""Whether a case's own module, with the sizes and weights of its pruned network, is equal to it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from masked_reference import flat, other_inputs, worst_difference
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from edgeprune.errors import StructureError
from edgeprune.graph.network import Network
from edgeprune.graph.write_back.reload import resize
from edgeprune.graph.write_back.write import write_back

_TOLERANCE = 1e-4
# Gradients pass through every layer twice, rounding each time.
_GRADIENT_TOLERANCE = 1e-2

Build = Callable[[], tuple[nn.Module, Sequence[Tensor]]]


def written_back_outcome(
    build: Build, network: Network, keep: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """Columns ``own_module`` and ``own_training`` (``equal`` or why not), and ``own_sizes``.

    Equal means at the example inputs and at others that write_back does not use, and again in a
    fresh module that was resized and loaded the state dict; in train mode, all gradients as well.
    ``own_sizes`` counts the attributes of the user's classes that were found.
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
        "own_training": _training(build()[0], fresh, pruned, inputs),
    }


def _training(
    dense: nn.Module, model: nn.Module, pruned: nn.Module, inputs: Sequence[Tensor]
) -> str:
    """``equal``, where outputs and gradients in train mode are the pruned network's, or why not.

    Where the dense module gives something else in train mode than in eval mode, by chance or by
    branches of its own, there is nothing to compare with: then ``runs``, if gradients reach all
    that they reach in the pruned network.
    """
    with torch.no_grad():
        in_eval = flat(dense.eval()(*(x.clone() for x in inputs)))
    alike = _difference(_trained(dense, inputs)[0], in_eval) <= _TOLERANCE
    have, gradients = _trained(model, inputs)
    want, wanted = _gradients(pruned, inputs)
    missing = [name for name in wanted if name not in gradients]
    if missing:
        return f"no gradient reaches {missing[0]} and {len(missing) - 1} more"
    if not alike or not wanted:
        return "runs"
    largest = max(float(g.norm()) for g in wanted.values())
    off, where = max(
        (float((gradients[n] - g).norm()) / max(float(g.norm()), 1e-3 * largest, 1e-12), n)
        for n, g in wanted.items()
    )
    if _difference(have, want) > _TOLERANCE:
        return "outputs differ"
    return "equal" if off <= _GRADIENT_TOLERANCE else f"gradient of {where} off by {off:.1e}"


def _difference(have: list[Tensor], want: list[Tensor]) -> float:
    if [y.shape for y in have] != [y.shape for y in want]:
        return float("inf")
    return worst_difference(have, want)


def _trained(model: nn.Module, inputs: Sequence[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Outputs and gradients in train mode, without dropout and batch statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, _NormBase | _DropoutNd):
            module.eval()
        if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
            module.dropout = 0.0
    return _gradients(model, inputs)


def _gradients(
    model: nn.Module, inputs: Sequence[Tensor]
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Outputs, and by every name of a parameter its gradient."""
    model.zero_grad()
    found = flat(model(*(x.clone() for x in inputs)))
    losses = [y.abs().square().mean() for y in found if y.requires_grad]
    if losses:
        sum(losses).backward()
    named = model.named_parameters(remove_duplicate=False)
    return [y.detach() for y in found], {n: p.grad for n, p in named if p.grad is not None}

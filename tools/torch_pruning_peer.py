"""What Torch-Pruning makes of a case, judged like ours: against the masked module.

Which entries it removed is told by a copy whose parameters hold their own positions. Needs
``pip install torch-pruning``; cases are left out of the comparison without it.
"""

import copy
import importlib.util
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from exactness import Difference, compare
from masked_reference import plain_copy
from rows import error_line
from torch import Tensor, nn


def installed() -> bool:
    """Whether Torch-Pruning can be imported."""
    return importlib.util.find_spec("torch_pruning") is not None


def peer_outcome(case: Mapping[str, Any]) -> dict[str, Any]:
    """The columns ``torch_pruning`` (an outcome) and ``torch_pruning_reason``."""
    model, inputs = case["build"]()
    model = plain_copy(model)
    positions = _positions(model)
    try:
        _prune_half(positions, inputs, case.get("outputs", ()))
        if all(
            p.shape == q.shape
            for p, q in zip(model.parameters(), positions.parameters(), strict=True)
        ):
            return {"torch_pruning": "frozen", "torch_pruning_reason": "nothing was removed"}
        found = _difference(model, positions, inputs)
    except Exception as error:  # a peer's failure is a row of the table
        return {"torch_pruning": "failed", "torch_pruning_reason": error_line(error)}
    return {"torch_pruning": found.outcome, "torch_pruning_reason": ""}


def _positions(model: nn.Module) -> nn.Module:
    """A copy in which every floating-point tensor holds the position of each entry."""
    found = copy.deepcopy(model).double()
    for tensor in _tensors(found).values():
        if tensor.is_floating_point():
            tensor.data = torch.arange(tensor.numel(), dtype=torch.float64).reshape(tensor.shape)
    return found


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return dict([*module.named_parameters(), *module.named_buffers()])


def _prune_half(model: nn.Module, inputs: Sequence[Tensor], outputs: Sequence[str]) -> None:
    import torch_pruning as tp

    torch.manual_seed(0)
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    tp.pruner.MetaPruner(
        model,
        inputs,
        importance=tp.importance.RandomImportance(),
        pruning_ratio=0.5,
        ignored_layers=[operator.attrgetter(name)(model) for name in outputs],
    ).step()


def _difference(model: nn.Module, positions: nn.Module, inputs: Sequence[Tensor]) -> Difference:
    pruned, masked = copy.deepcopy(positions).float(), copy.deepcopy(model)
    own, dense, small, hidden = map(_tensors, (positions, model, pruned, masked))
    for name, places in own.items():
        if not places.is_floating_point():
            continue
        index = places.detach().long().flatten()
        values = dense[name].detach().flatten()
        small[name].data = values[index].reshape(places.shape)
        kept = torch.zeros_like(values)
        kept[index] = values[index]
        hidden[name].data = kept.reshape(dense[name].shape)
    return compare(pruned, masked, inputs)

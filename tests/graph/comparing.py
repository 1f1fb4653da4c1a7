"""What tells whether a module written back is what it should be."""

from typing import Any

import torch
from masked_reference import flat, other_inputs, worst_difference
from torch import Tensor, nn


def assert_equal(model: nn.Module, graph: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    for tried in (inputs, other_inputs(inputs, torch.Generator().manual_seed(3))):
        with torch.no_grad():
            assert worst_difference(flat(model(*tried)), flat(graph(*tried))) < 1e-4


def everything(model: nn.Module) -> list[Any]:
    """All that a module is made of, comparable with ==."""
    found: list[Any] = []
    for name, module in model.named_modules():
        values = {k: v for k, v in vars(module).items() if not isinstance(v, Tensor)}
        plain = {k: v for k, v in values.items() if k not in ("_parameters", "_buffers")}
        held = {**module._parameters, **module._buffers}
        held |= {k: v for k, v in vars(module).items() if isinstance(v, Tensor)}
        tensors = {k: (id(t), t.shape, t.tolist()) for k, t in held.items() if t is not None}
        found.append((name, type(module), plain, tensors))
    return found

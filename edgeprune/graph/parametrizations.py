"""Parametrised weights (weight_norm and the like) replaced by the weights they compute."""

import copy

from torch import nn
from torch.nn.utils import parametrize, remove_weight_norm
from torch.nn.utils.weight_norm import WeightNorm


def is_parametrized(model: nn.Module) -> bool:
    """Whether a weight anywhere in a model is computed of others."""
    return any(parametrize.is_parametrized(m) or _hooked(m) for m in model.modules())


def baked_copy(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """A copy without parametrised weights, and one note a weight."""
    for module in model.modules():
        for tensor in _hooked(module):
            # It is computed before each call; with a history it could not be copied.
            setattr(module, tensor, getattr(module, tensor).detach())
    copied = copy.deepcopy(model)
    return copied, bake_parametrizations(copied)


def bake_parametrizations(model: nn.Module) -> list[str]:
    """Make every parametrised weight a plain parameter, in place; returns one note a weight."""
    notes = []
    for name, module in model.named_modules():
        for tensor in _bake(module):
            notes.append(f"{name}.{tensor}: parametrization replaced by the weight it computes")
        for tensor in _hooked(module):
            remove_weight_norm(module, tensor)
            notes.append(f"{name}.{tensor}: weight_norm replaced by the weight it computes")
    return notes


def _hooked(module: nn.Module) -> list[str]:
    hooks = module._forward_pre_hooks.values()
    return [hook.name for hook in hooks if isinstance(hook, WeightNorm)]


def _bake(module: nn.Module) -> list[str]:
    """Make the parametrised tensors of one module plain parameters; returns their names."""
    names = list(getattr(module, "parametrizations", {}))
    values = {name: getattr(module, name).detach().clone() for name in names}
    if names:
        # torch's own removal edits the generated class, which copies share with the original.
        del module._modules["parametrizations"]
        module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))
    return names

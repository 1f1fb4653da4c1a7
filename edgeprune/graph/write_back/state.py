"""Tensors and attributes of a user's module: found, set, and put back as they were."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from edgeprune.graph.write_back.sizes import Attributes

_CONTAINERS = (dict, OrderedDict, set, list)


class Snapshot:
    """A module as it is now: classes, attributes, hooks and tensors of all modules in it.

    Tensors are kept, not copied: nothing here writes into one.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [
            (
                module,
                type(module),
                dict(module.__dict__),
                {k: v.copy() for k, v in vars(module).items() if type(v) in _CONTAINERS},
            )
            for module in model.modules()
        ]

    def restore(self) -> None:
        """Put everything back; modules, their containers and tensors are the same objects."""
        for module, kind, entries, contents in self._modules:
            module.__class__ = kind
            module.__dict__.clear()
            module.__dict__.update(entries)
            for name, content in contents.items():
                held = module.__dict__[name]
                held.clear()
                fill = held.extend if isinstance(held, list) else held.update
                fill(content)


def find_tensor(model: nn.Module, name: str) -> Tensor | None:
    """The parameter, buffer or plain tensor of a qualified name."""
    path, _, leaf = name.rpartition(".")
    try:
        found = getattr(model.get_submodule(path), leaf)
    except AttributeError:
        return None
    return found if isinstance(found, Tensor) else None


def set_tensors(model: nn.Module, values: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Put tensors of new values and any shape in place of those of these names.

    Wherever the module holds the same tensor it gets the same new one, so that ties hold. What has
    another shape than before becomes part of the state dict, if it was not.

    Returns:
        The names that the model has.
    """
    new: dict[int, Tensor] = {}
    written = []
    for name, value in values.items():
        old = find_tensor(model, name)
        if old is not None:
            made = value.detach().clone().to(old)
            if isinstance(old, nn.Parameter):
                made = nn.Parameter(made, requires_grad=old.requires_grad)
            new[id(old)] = made
            written.append(name)
    for module in model.modules():
        for held in (module._parameters, module._buffers, vars(module)):
            for leaf, old in list(held.items()):
                if id(old) in new:
                    _replace(module, leaf, old, new[id(old)])
    return tuple(written)


def _replace(module: nn.Module, leaf: str, old: Tensor, new: Tensor) -> None:
    if old.shape != new.shape and leaf not in module._parameters:
        # Which entries are left no constructor can tell: the state dict has to.
        if leaf in module._buffers:
            module._non_persistent_buffers_set.discard(leaf)
        else:
            delattr(module, leaf)
            module.register_buffer(leaf, new)
    setattr(module, leaf, new)


def set_attributes(model: nn.Module, attributes: Attributes) -> Attributes:
    """Set attributes of modules; returns their values of before.

    A list becomes a tuple, in whose place a file has it, unless a list was there before.
    """
    before: dict[str, dict[str, Any]] = {}
    for path, values in attributes.items():
        module = model.get_submodule(path)
        before[path] = {name: getattr(module, name) for name in values}
        for name, value in values.items():
            if isinstance(value, list | tuple):
                value = list(value) if isinstance(before[path][name], list) else tuple(value)
            setattr(module, name, value)
    return before

"""Plain modules that hold tensors under qualified names."""

from torch import Tensor, nn


def attach(root: nn.Module, name: str, value: Tensor) -> None:
    """Set a parameter or buffer under its qualified name, with the modules on the way."""
    *path, leaf = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    if isinstance(value, nn.Parameter):
        root.register_parameter(leaf, value)
    else:
        root.register_buffer(leaf, value)

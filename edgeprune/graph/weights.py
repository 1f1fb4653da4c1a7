"""Weights of a shrunk network in a safetensors file."""

import hashlib
from pathlib import Path

import torch
from torch import fx

from edgeprune.atomic import atomic_path
from edgeprune.errors import InputError


def state_key(module: torch.nn.Module) -> str:
    """SHA-256 of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        add_tensor(digest, name, tensor)
    return digest.hexdigest()


def add_tensor(digest: "hashlib._Hash", name: str, tensor: torch.Tensor) -> None:
    """Add a tensor's name, shape, type and values to a hash."""
    digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
    digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())


def save_weights(module: torch.nn.Module, path: Path | str) -> None:
    """Write all parameters and buffers under their qualified names, whole or not at all.

    Raises:
        WorkspaceError: The disk is full, or the folder cannot be written.
    """
    from safetensors.torch import save_file

    # Tied parameters share memory, which the format refuses; each name gets its own copy.
    own = torch.contiguous_format
    state = {name: t.detach().clone(memory_format=own) for name, t in module.state_dict().items()}
    with atomic_path(Path(path)) as partial:
        save_file(state, partial)


def read_tensors(path: Path | str) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file.

    Raises:
        InputError: The file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise InputError(f"weights cannot be read from {path}: {error}") from error


def load_weights(module: fx.GraphModule, path: Path | str) -> None:
    """Read weights into a network that was shrunk in the same way.

    Raises:
        InputError: The file cannot be read, or its names or shapes are not this network's.
    """
    module.load_state_dict(read_weights_of(module, path))


def read_weights_of(module: torch.nn.Module, path: Path | str) -> dict[str, torch.Tensor]:
    """A module's weights from a file, and nothing else.

    Raises:
        InputError: The file cannot be read, or its names or shapes are not this module's.
    """
    found, state = read_tensors(path), module.state_dict()
    odd = sorted(found.keys() ^ state.keys())
    if odd:
        raise InputError(f"{path} does not fit this network: {odd[0]} is only on one side")
    for name, value in found.items():
        if value.shape != state[name].shape:
            raise InputError(
                f"{path} does not fit this network: {name} has shape {list(value.shape)}, "
                f"not {list(state[name].shape)}; was it saved with another plan?"
            )
    return found

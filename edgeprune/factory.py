"""Making a user's torch model from ``module:function`` and loading its weights safely."""

import importlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import TaskError
from edgeprune.suggest import suggestion
from edgeprune.task_source import import_file

if TYPE_CHECKING:
    from torch import Tensor, nn


def build_model(reference: str) -> "nn.Module":
    """Call a model factory, such as ``torchvision.models:resnet18`` or ``net.py:build``.

    Raises:
        TaskError: the reference cannot be found, raises, or gives no torch module.
    """
    import torch

    place, colon, name = reference.rpartition(":")
    if not colon or not name:
        raise TaskError(f"factory '{reference}' is not module:function or file.py:function")
    factory = _function(place, name)
    try:
        model = factory()
    except Exception as error:
        text = " ".join(str(error).split())
        raise TaskError(f"factory {reference} raised {type(error).__name__}: {text}") from error
    if not isinstance(model, torch.nn.Module):
        raise TaskError(f"factory {reference} made a '{type(model).__name__}', no torch.nn.Module")
    return model


def load_weights(model: "nn.Module", path: Path) -> None:
    """Load a plain state dict into a model, from safetensors or with ``weights_only=True``.

    Raises:
        TaskError: missing or damaged file, or names and shapes that do not fit the model.
    """
    state = _read_state(path)
    expected = model.state_dict()
    for name in expected:
        if name not in state:
            raise TaskError(f"{path} has no weight '{name}'; {suggestion(name, state)}")
        if state[name].shape != expected[name].shape:
            raise TaskError(
                f"{path}: weight '{name}' is {tuple(state[name].shape)}, "
                f"the model wants {tuple(expected[name].shape)}"
            )
    for name in state:
        if name not in expected:
            raise TaskError(f"{path}: the model has no weight '{name}'")
    model.load_state_dict(state)


def _function(place: str, name: str) -> Callable[[], Any]:
    if place.endswith(".py"):
        path = Path(place).expanduser()
        if not path.is_file():
            raise TaskError(f"factory file {path} does not exist")
        module, _ = import_file(path.resolve())
    else:
        try:
            module = importlib.import_module(place)
        except ImportError as error:
            raise TaskError(f"factory module '{place}' cannot be imported: {error}") from error
    factory = getattr(module, name, None)
    if not callable(factory):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise TaskError(f"'{place}' has no function '{name}'; {suggestion(name, names)}")
    return factory  # type: ignore[no-any-return]


def _read_state(path: Path) -> "dict[str, Tensor]":
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise TaskError(f"weights file {path} does not exist; set weights=FILE")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError) as error:
        raise TaskError(f"{path} is damaged or not a weights file") from error
    except pickle.UnpicklingError as error:
        raise TaskError(
            f"{path} holds more than tensors and is not loaded; save the plain state dict"
        ) from error
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise TaskError(f"{path} is not a plain state dict; save model.state_dict()")
    return state

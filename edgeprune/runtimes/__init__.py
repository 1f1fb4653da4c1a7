"""Runtimes by name. A new one is its file, its test and one line here."""

import importlib
from typing import cast

from edgeprune.errors import InputError
from edgeprune.runtimes.base import (
    Arrays,
    CompileOptions,
    LayerTime,
    Runtime,
    Session,
)
from edgeprune.suggest import suggestion

__all__ = ["Arrays", "CompileOptions", "LayerTime", "Runtime", "Session", "runtime"]

# Name -> module and class, imported only when asked for.
_RUNTIMES = {
    "openvino": ("edgeprune.runtimes.openvino", "OpenvinoRuntime"),
}


def runtime(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        InputError: There is none of that name.
    """
    if name not in _RUNTIMES:
        raise InputError(f"unknown runtime '{name}'; {suggestion(name, _RUNTIMES)}")
    module, attribute = _RUNTIMES[name]
    return cast(Runtime, getattr(importlib.import_module(module), attribute)())

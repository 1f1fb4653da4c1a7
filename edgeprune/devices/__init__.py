"""Devices by transport. A new one is its file, its test and one line here."""

import importlib
from typing import cast

from edgeprune.devices.base import Device, Runner
from edgeprune.errors import InputError
from edgeprune.suggest import suggestion

__all__ = ["Device", "Runner", "device"]

# Transport -> module and class, imported only when asked for.
_TRANSPORTS = {
    "local": ("edgeprune.devices.local", "LocalDevice"),
}


def device(transport: str) -> Device:
    """The device behind a transport.

    Raises:
        InputError: There is no such transport.
    """
    if transport not in _TRANSPORTS:
        raise InputError(f"unknown transport '{transport}'; {suggestion(transport, _TRANSPORTS)}")
    module, attribute = _TRANSPORTS[transport]
    return cast(Device, getattr(importlib.import_module(module), attribute)())

"""Prune a torch model to a latency, and prove it by measuring on the device.

Nothing heavy is imported here: names are fetched when they are first used.
"""

from importlib import import_module
from typing import Any

_LAZY: dict[str, str] = {
    "compress": "edgeprune.api",
    "CompressRequest": "edgeprune.request",
    "Goal": "edgeprune.request",
    "inspect": "edgeprune.api",
    "load_onnx": "edgeprune.onnx_import",
    "load_pt2": "edgeprune.pt2_import",
    "openvino_extension": "edgeprune.kernels.extension",
    "load_shrunk": "edgeprune.graph.write_back.reload",
    "resize": "edgeprune.graph.write_back.reload",
    "write_back": "edgeprune.graph.write_back.write",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from edgeprune.locate import version

        return version()
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'edgeprune' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY, "__version__"])

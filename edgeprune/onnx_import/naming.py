"""Module paths and parameter names made of the names in an ONNX file."""

import re

from torch import nn

# What exporters write where a tensor had no name of its own.
_ANONYMOUS = re.compile(r"^(onnx::\w+|\d+|val_\d+|const_\d+.*)$")
_SLOTS = {1: "weight", 2: "bias"}


class Names:
    """Hands out paths that are valid and clash neither with each other nor with attributes."""

    def __init__(self, root: nn.Module, operator: type[nn.Module]) -> None:
        self._reserved = {*dir(root), *vars(root), *dir(operator), "_node", "_operator"}
        self._modules: set[str] = {""}
        self._tensors: set[str] = set()
        self._owned: set[str] = set()

    def tensor(self, name: str, scope: str, slot: int) -> str:
        """The path of a parameter or buffer of this name, first read by a node of that module."""
        if _ANONYMOUS.match(name):
            name = f"{scope}.{_SLOTS.get(slot, f'constant_{slot}')}"
        path = self._free(self._path(name))
        self._tensors.add(path)
        self._add_parents(path)
        return path

    def module(self, name: str, tensor: str | None) -> str:
        """The path of a node's module: where its first tensor lives, or the node's own name."""
        parent = tensor.rpartition(".")[0] if tensor else ""
        if not parent or parent in self._owned:
            parent = self._free(self._path(name))
        self._owned.add(parent)
        self._modules.add(parent)
        self._add_parents(parent)
        return parent

    def _path(self, name: str) -> str:
        name = re.sub(r":0$", "", name)
        parts = [part.strip() for part in re.split(r"[./:]+", name)]
        kept = [f"{part}_" if part in self._reserved else part for part in parts if part]
        return ".".join(kept) or "unnamed"

    def _free(self, path: str) -> str:
        candidate, count = path, 0
        while not self._is_free(candidate):
            count += 1
            candidate = f"{path}_{count}"
        return candidate

    def _is_free(self, path: str) -> bool:
        parts = path.split(".")
        above = {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
        return path not in self._modules and not above & self._tensors

    def _add_parents(self, path: str) -> None:
        parts = path.split(".")
        self._modules.update(".".join(parts[:i]) for i in range(1, len(parts)))

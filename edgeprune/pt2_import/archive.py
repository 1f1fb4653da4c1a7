"""The entries of a ``.pt2`` archive: texts of JSON and raw tensors."""

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgeprune.errors import InputError

_MODEL = "models/model.json"
_CONFIGS = {
    "weights": "data/weights/model_weights_config.json",
    "constants": "data/constants/model_constants_config.json",
}
# The format's own numbers of element types.
_TYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
_STRIDED = 7
_SAVE_AGAIN = "save it again with torch.export.save"


def element_type(number: Any) -> torch.dtype:
    """The type of that number in the format.

    Raises:
        InputError: It is none that can be pruned.
    """
    if number not in _TYPES:
        raise InputError(f"the program holds tensors of type {number}; only plain ones can be read")
    return _TYPES[number]


class Archive:
    """An archive whose entries are read as data only.

    Raises:
        InputError: No archive of ``torch.export.save``, or one that was altered.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{path} is damaged or no .pt2 file; {_SAVE_AGAIN}") from error
        entries = self._zip.infolist()
        self._root = entries[0].filename.partition("/")[0] if entries else ""
        self._sizes = {entry.filename: entry.file_size for entry in entries}
        for entry in entries:
            # Nothing is compressed, so nothing grows beyond the file.
            if entry.compress_type != zipfile.ZIP_STORED:
                raise InputError(f"{path}: {entry.filename} is compressed; {_SAVE_AGAIN}")
        if sum(self._sizes.values()) > path.stat().st_size or len(self._sizes) != len(entries):
            raise InputError(f"{path} holds overlapping entries; {_SAVE_AGAIN}")
        if f"{self._root}/{_MODEL}" not in self._sizes:
            raise InputError(f"{path} holds no program of this torch's format; {_SAVE_AGAIN}")

    def program(self) -> Mapping[str, Any]:
        """The description of graph and signature."""
        return self._json(_MODEL)

    def tensors(self, kind: str) -> dict[str, Tensor]:
        """Weights or constants by name; parameters are such.

        Raises:
            InputError: A payload is pickled, which is never loaded.
        """
        found = {}
        for name, payload in self._json(_CONFIGS[kind])["config"].items():
            if payload["use_pickle"] or payload["tensor_meta"] is None:
                raise InputError(
                    f"{self._path}: '{name}' is pickled, which can run code and is not loaded; "
                    "export a model of plain tensors"
                )
            tensor = self._tensor(f"data/{kind}/{payload['path_name']}", name, payload)
            found[name] = torch.nn.Parameter(tensor) if payload["is_param"] else tensor
        return found

    def _tensor(self, entry: str, name: str, payload: Mapping[str, Any]) -> Tensor:
        meta, raw = payload["tensor_meta"], bytearray(self._read(entry))
        dtype = element_type(meta["dtype"])
        sizes, strides = ([part["as_int"] for part in meta[key]] for key in ("sizes", "strides"))
        offset = meta["storage_offset"]["as_int"]
        count = len(raw) // dtype.itemsize
        needed = offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True)) + 1
        fits = math.prod(sizes) <= count and (0 in sizes or needed <= count)
        if min([*sizes, *strides, offset], default=0) < 0 or not fits or meta["layout"] != _STRIDED:
            raise InputError(f"{self._path}: '{name}' does not fit its bytes; {_SAVE_AGAIN}")
        if 0 in sizes:
            return torch.zeros(sizes, dtype=dtype)
        whole = torch.frombuffer(raw, dtype=dtype)
        return whole.as_strided(sizes, strides, offset).clone()

    def _json(self, entry: str) -> Mapping[str, Any]:
        try:
            found: Mapping[str, Any] = json.loads(self._read(entry))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self._path}: {entry} is damaged; {_SAVE_AGAIN}") from error
        return found

    def _read(self, entry: str) -> bytes:
        try:
            return self._zip.read(f"{self._root}/{entry}")
        except (KeyError, zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{self._path} lacks {entry}; {_SAVE_AGAIN}") from error

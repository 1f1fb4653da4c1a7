"""The sizes that a dense module is changed to; what ``sizes.json`` holds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.atomic import atomic_write_json
from edgeprune.errors import InputError

VERSION = 1

Attributes = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Sizes:
    """What differs between a dense module and the same module shrunk.

    Attributes:
        modules: By module path, the attributes of torch's own modules that name a size, such as
            ``{"layer1.0.conv1": {"out_channels": 24}}``; only those that changed.
        own: The same of modules of the user's classes (``num_heads``), found by trying them.
        tensors: Shapes of the parameters and buffers that shrank.
        notes: What a user should know about how it was done.
    """

    modules: Attributes
    own: Attributes
    tensors: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()

    def save(self, path: Path | str) -> None:
        """Write them as JSON, whole or not at all.

        Raises:
            WorkspaceError: The disk is full, or the folder cannot be written.
        """
        record = {
            "version": VERSION,
            "modules": {name: dict(found) for name, found in self.modules.items()},
            "own": {name: dict(found) for name, found in self.own.items()},
            "tensors": {name: list(shape) for name, shape in self.tensors.items()},
            "notes": list(self.notes),
        }
        atomic_write_json(Path(path), record)


def load_sizes(path: Path | str) -> Sizes:
    """Read what ``Sizes.save`` wrote.

    Raises:
        InputError: The file is missing, damaged, or of another version.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"sizes cannot be read from {path}: {error}") from error
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise InputError(f"{path} does not hold sizes of version {VERSION}; run compress again")
    try:
        return Sizes(
            modules={str(name): dict(found) for name, found in data["modules"].items()},
            own={str(name): dict(found) for name, found in data["own"].items()},
            tensors={str(n): tuple(int(s) for s in shape) for n, shape in data["tensors"].items()},
            notes=tuple(str(note) for note in data["notes"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} lacks or garbles {error}; run compress again") from error

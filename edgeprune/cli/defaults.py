"""``edgeprune.yaml`` of the working folder: what options left out are taken from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeprune.errors import InputError
from edgeprune.schema import Checked, from_mapping, read_yaml

FILE = "edgeprune.yaml"

Scalar = str | int | float


@dataclass(frozen=True)
class Defaults(Checked):
    """Options that the command line may leave out, named as there."""

    device: str | None = None
    task: str | None = None
    target_latency: tuple[Scalar, ...] = ()
    target_speedup: tuple[Scalar, ...] = ()
    recipe: str | None = None
    recovery: Scalar | None = None
    out: str | None = None
    set: Mapping[str, bool | Scalar] = field(default_factory=dict)

    def settings(self, given: Mapping[str, str]) -> dict[str, str]:
        """The task's settings as text; given ones win."""
        return {**{key: _text(value) for key, value in self.set.items()}, **given}


def read_defaults() -> Defaults:
    """The defaults of the working folder; empty where there is no file.

    Raises:
        InputError: the file is broken or has unknown keys.
    """
    path = Path(FILE)
    if not path.is_file():
        return Defaults()
    data = read_yaml(path)
    if data is None:
        return Defaults()
    if isinstance(data, dict):
        # Options are written with dashes; a single target needs no list.
        data = {str(key).replace("-", "_"): value for key, value in data.items()}
        for key in ("target_latency", "target_speedup"):
            if key in data and not isinstance(data[key], list):
                data[key] = [data[key]]
    return from_mapping(Defaults, data, FILE)


def needed(value: str | None, default: str | None, option: str, example: str) -> str:
    """The option's value, or its default.

    Raises:
        InputError: neither was given.
    """
    found = value or default
    if not found:
        raise InputError(f"{option} is missing; add {option} {example} or put it into {FILE}")
    return found


def _text(value: bool | Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

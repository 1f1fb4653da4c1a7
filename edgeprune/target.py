"""A target: the device a model is to run on, and how it is reached and driven."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from edgeprune.locate import find_yaml
from edgeprune.schema import Checked, Range, from_mapping, read_yaml

Precision = Literal["default", "f32", "bf16", "f16"]


@dataclass(frozen=True)
class Target(Checked):
    """A device description, as a file of ``targets/`` holds it.

    Attributes:
        name: The file's stem.
        path: The file it was read from.
        version: Version of the file's format.
        description: One line for people.
        transport: How the device is reached: a file of ``devices/``.
        runtime: What runs the model there: a file of ``runtimes/``.
        threads: Threads of the runtime while it infers.
        precision: ``default`` leaves the choice to the runtime, which is what users get.
        channel_multiple: Levels of channel-like structures are multiples of this.
    """

    name: str
    path: Path
    version: Literal[1]
    transport: str
    runtime: str
    description: str = ""
    threads: Annotated[int, Range(1, 1024)] = 1
    precision: Precision = "default"
    channel_multiple: Annotated[int, Range(1, 256)] = 8


def load_target(name_or_path: str | Path) -> Target:
    """Read a target by its shipped name or from a file.

    Raises:
        InputError: no such target, or a file that does not describe one.
    """
    path = find_yaml("targets", name_or_path)
    return from_mapping(Target, read_yaml(path), str(path), name=path.stem, path=path)

"""Where things lie: shipped targets, recipes and tables, and the user's cache.

In a checkout the shipped folders stand beside the package; in an installed wheel they are inside
it, as ``edgeprune/data``. Nothing here depends on the working folder.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from edgeprune.errors import InputError
from edgeprune.suggest import suggestion

Kind = Literal["targets", "recipes", "profiles"]

PACKAGE = Path(__file__).resolve().parent


def shipped_folder(kind: Kind) -> Path:
    """The folder of targets, recipes or latency tables that came with this edgeprune."""
    beside = PACKAGE.parent / kind
    if (PACKAGE.parent / "setup.cfg").is_file() and beside.is_dir():
        return beside
    return PACKAGE / "data" / kind


def shipped_names(kind: Kind) -> tuple[str, ...]:
    """Names (file stems) of the YAML files of a kind, sorted."""
    return tuple(sorted(path.stem for path in _yaml_files(kind)))


def find_yaml(kind: Kind, name_or_path: str | Path) -> Path:
    """The YAML file meant by a shipped name or by a path of the user's own.

    Raises:
        InputError: nothing of that name; the message holds the closest one that exists.
    """
    text = str(name_or_path)
    singular = kind.removesuffix("s")
    if _looks_like_path(text):
        path = Path(text).expanduser()
        if not path.is_file():
            raise InputError(f"{singular} file {path} does not exist; give a .yaml file or a name")
        return path
    for path in _yaml_files(kind):
        if path.stem == text:
            return path
    raise InputError(f"unknown {singular} '{text}'; {suggestion(text, shipped_names(kind))}")


def cache_folder(*parts: str) -> Path:
    """A folder of the user's cache (``XDG_CACHE_HOME`` or ``~/.cache``); made when missing."""
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = root if root.is_absolute() else Path.home() / ".cache"
    folder = base.joinpath("edgeprune", *parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the cache folder {folder} ({error.strerror}); set XDG_CACHE_HOME"
        ) from error
    return folder


def version() -> str:
    """The version of this edgeprune, from the installed metadata or the checkout's setup.cfg."""
    setup = PACKAGE.parent / "setup.cfg"
    if setup.is_file():
        from configparser import ConfigParser

        parser = ConfigParser()
        parser.read(setup, encoding="utf-8")
        found = parser.get("metadata", "version", fallback="")
        if found:
            return found
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version

    try:
        return installed_version("edgeprune")
    except PackageNotFoundError:
        return "unknown"


def _yaml_files(kind: Kind) -> Iterator[Path]:
    folder = shipped_folder(kind)
    if folder.is_dir():
        yield from sorted(folder.glob("*.yaml"))


def _looks_like_path(text: str) -> bool:
    return "/" in text or os.sep in text or text.endswith((".yaml", ".yml"))

"""Files that are whole or absent: written beside, flushed to the disk, then renamed."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgeprune.errors import WorkspaceError

PARTIAL = ".partial"
_IN_RUST = re.compile(r"\(os error (\d+)\)")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes ``path`` when the block ends without an error.

    For writers that take a file name. The file keeps its name, in a folder of its own; what the
    writer puts beside it (the ``.bin`` of an IR) moves along.

    Raises:
        WorkspaceError: the disk is full, or the folder cannot be written.
    """
    with _translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f"{PARTIAL}-", dir=path.parent) as folder:
            partial = Path(folder) / path.name
            yield partial
            _put(partial, path)


def atomic_write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file, or leave what was there.

    Raises:
        WorkspaceError: the disk is full, or the folder cannot be written.
    """
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def atomic_write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys; a value that is not finite is an error of ours."""
    atomic_write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def remove_partials(folder: Path) -> None:
    """Remove what killed writers left in a folder and below it."""
    for path in list(folder.rglob(f"{PARTIAL}-*")):
        shutil.rmtree(path, ignore_errors=True)


def _put(partial: Path, path: Path) -> None:
    """Move a written file, and before it what belongs to it, to where they shall be."""
    beside = [file for file in partial.parent.iterdir() if file != partial]
    for file in (*beside, partial):
        _flush(file)
    if beside:
        path.unlink(missing_ok=True)  # an old file must never stand beside new ones
    for file in beside:
        file.replace(path.with_name(file.name))
    partial.replace(path)
    _flush(path.parent)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        code = _system_code(error)
        if code in (errno.ENOSPC, errno.EDQUOT):
            raise WorkspaceError(
                f"the disk is full: cannot write {path}; free some space and run again to resume"
            ) from error
        if code in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise WorkspaceError(
                f"cannot write {path} ({os.strerror(code)}); choose another folder with --out"
            ) from error
        raise


def _system_code(error: Exception) -> int | None:
    """The system's number of an error, also where a library in Rust put it into its text."""
    if isinstance(error, OSError):
        return error.errno
    found = _IN_RUST.search(str(error))
    return int(found[1]) if found else None


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Files that are whole or absent: written beside, flushed to the disk, then renamed."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeprune.errors import WorkspaceError

PARTIAL = ".partial"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes ``path`` when the block ends without an error.

    For writers that take a file name. The partial file keeps the suffix of ``path``, because some
    of them go by it.

    Raises:
        WorkspaceError: the disk is full, or the folder cannot be written.
    """
    partial = path.with_name(f"{PARTIAL}-{os.getpid()}-{path.name}")
    try:
        with _translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with _translated(path):
            yield partial
        with _translated(path):
            _flush(partial)
            partial.replace(path)
            _flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


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
    for path in folder.rglob(f"{PARTIAL}-*"):
        path.unlink(missing_ok=True)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkspaceError(
                f"the disk is full: cannot write {path}; free some space and run again to resume"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise WorkspaceError(
                f"cannot write {path} ({error.strerror}); choose another folder with --out"
            ) from error
        raise


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

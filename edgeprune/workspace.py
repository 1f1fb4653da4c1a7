"""The run folder: one task on one target, locked while in use, resumable after any death.

Layout::

    run.json                  whose folder this is
    .lock                     held by the running process; the kernel frees it when that dies
    stages/NAME-KEY/          one finished or interrupted stage under a key of all its inputs
        stage.json            written last: inputs and result; a stage without it is not done
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from edgeprune.atomic import PARTIAL, atomic_write_json, remove_partials
from edgeprune.errors import WorkspaceError

FORMAT = 1
IDENTITY = "run.json"
LOCK = ".lock"


@dataclass(frozen=True)
class Stage:
    """One stage's folder. Files may be written to it at any time; ``finish`` makes it count."""

    name: str
    key: str
    folder: Path
    inputs: Mapping[str, Any]

    @property
    def done(self) -> bool:
        """Whether the stage was finished, by this or an earlier process."""
        return self._marker.is_file()

    @property
    def result(self) -> Any:
        """What ``finish`` was given.

        Raises:
            WorkspaceError: the stage is not finished, or its record is damaged.
        """
        try:
            return json.loads(self._marker.read_text(encoding="utf-8"))["result"]
        except FileNotFoundError as error:
            raise WorkspaceError(f"stage {self.name} in {self.folder} is not finished") from error
        except (ValueError, KeyError, TypeError) as error:
            raise WorkspaceError(
                f"{self._marker} is damaged; remove {self.folder} and run again"
            ) from error

    def finish(self, result: Any = None) -> None:
        """Record the stage as done, with a result that JSON can hold."""
        record = {"inputs": dict(self.inputs), "result": result, "finished": _now()}
        atomic_write_json(self._marker, record)

    @property
    def _marker(self) -> Path:
        return self.folder / "stage.json"


class Workspace:
    """An open run folder; use it as a context manager.

    Args:
        folder: The run folder; made when missing.
        identity: What the folder belongs to, such as task and device; JSON scalars.

    Raises:
        WorkspaceError: in use by another process, of another task or device, not a run folder, or
            not writable.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self.identity = dict(identity)
        self._make_folder()
        self._lock = self._acquire()
        try:
            self._check_identity()
            remove_partials(self.folder)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Workspace":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.close()

    def stage(self, name: str, inputs: Mapping[str, Any]) -> Stage:
        """The stage of this name for exactly these inputs.

        Args:
            name: The stage, in words a folder name can hold.
            inputs: Everything the result depends on, as JSON can hold it. Other inputs give
                another folder, so results are never mixed.
        """
        key = key_of(inputs)
        folder = self.folder / "stages" / f"{name}-{key[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(
                f"cannot write {folder} ({error.strerror}); free some space or choose another --out"
            ) from error
        return Stage(name, key, folder, dict(inputs))

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(
                f"cannot make run folder {self.folder} ({error.strerror}); "
                "choose another with --out"
            ) from error

    def _acquire(self) -> TextIO:
        path = self.folder / LOCK
        try:
            handle = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise WorkspaceError(
                f"cannot write run folder {self.folder} ({error.strerror}); "
                "choose another with --out"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            handle.close()
            raise WorkspaceError(
                f"run folder {self.folder} is in use by {holder}; wait for it or choose another "
                "with --out"
            ) from error
        handle.seek(0)
        handle.truncate()
        handle.write(f"process {os.getpid()} since {_now()}")
        handle.flush()
        return handle

    def _check_identity(self) -> None:
        path = self.folder / IDENTITY
        wanted = {"format": FORMAT, **self.identity}
        if not path.exists():
            foreign = [
                p.name
                for p in self.folder.iterdir()
                if p.name != LOCK and not p.name.startswith(PARTIAL)
            ]
            if foreign:
                (self.folder / LOCK).unlink(missing_ok=True)
                raise WorkspaceError(
                    f"{self.folder} is not a run folder and not empty (it holds '{foreign[0]}'); "
                    "choose another with --out"
                )
            atomic_write_json(path, wanted)
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise WorkspaceError(f"{path} is damaged; choose another folder with --out") from error
        for key, value in json.loads(json.dumps(wanted)).items():
            seen = found.get(key) if isinstance(found, dict) else None
            if seen != value:
                raise WorkspaceError(
                    f"run folder {self.folder} belongs to {key} '{seen}', not '{value}'; "
                    "choose another with --out"
                )


def key_of(inputs: Mapping[str, Any]) -> str:
    """The SHA-256 of the inputs, whatever the order of their keys."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")

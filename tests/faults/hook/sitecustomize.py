"""Loaded by Python at start-up of a command under test: counts writes and breaks one of them.

Armed by `inject.run` through the environment, and only in the process that it starts itself, so
that helper processes of the command live on until it dies.
"""

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _arm(plan: dict[str, Any]) -> None:
    under, fault = plan["under"], plan["fault"]
    log = os.open(plan["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    write, count, full = os.write, {"replace": 0, "fsync": 0, "write": 0}, False

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(name: str, real: Callable[..., Any], path_of: Callable[..., str]) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal full
            path = path_of(*args)
            if not Path(path).is_relative_to(under):
                return real(*args, **kwargs)
            count[name] += 1
            write(log, f"{name} {path}\n".encode())
            hit = fault is not None and fault["call"] == name and fault["at"] == count[name]
            effect = fault["effect"] if hit else None
            if effect == "kill_before":
                die()
            if effect == "tear":
                real(args[0], args[1][: len(args[1]) // 2])
                die()
            # A disk that is full stays full, for every kind of write.
            full = full or effect == "full"
            if full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            result = real(*args, **kwargs)
            if effect == "kill_after":
                die()
            return result

        return call

    def of_handle(handle: int, *_: Any) -> str:
        return os.readlink(f"/proc/self/fd/{handle}")

    def of_target(_: Any, target: Any) -> str:
        return os.path.abspath(os.fspath(target))

    os.replace = wrapped("replace", os.replace, of_target)
    os.fsync = wrapped("fsync", os.fsync, of_handle)
    os.write = wrapped("write", os.write, of_handle)


_plan = json.loads(os.environ.get("WRITE_FAULT_PLAN", "null"))
if _plan is not None and _plan["parent"] == os.getppid():
    _arm(_plan)

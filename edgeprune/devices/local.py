"""This machine as a device: the runner is a child process, files are already here."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeprune import errors
from edgeprune.errors import EdgepruneError, UnavailableError

# The libraries' own thread pools would compete with the runtime's threads.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}
_GRACE_S = 2.0


class LocalDevice:
    """The machine edgeprune runs on."""

    name = "local"

    @contextlib.contextmanager
    def runner(self, environment: Mapping[str, str] | None = None) -> Iterator["PipeRunner"]:
        """A fresh child process; killed with all its children on leaving."""
        package_root = Path(__file__).resolve().parents[2]
        variables = {**os.environ, **_ENVIRONMENT, **(environment or {})}
        path = [str(package_root), *filter(None, [variables.get("PYTHONPATH")])]
        variables["PYTHONPATH"] = os.pathsep.join(path)
        command = [sys.executable, "-m", "edgeprune.devices.runner"]
        runner = PipeRunner(command, variables)
        try:
            yield runner
        finally:
            runner.close()

    def push(self, path: Path) -> str:
        """The absolute path; nothing has to be copied."""
        return str(path.resolve())


class PipeRunner:
    """A runner behind the pipes of a child process."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the runner)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            self._log.close()
            raise UnavailableError(f"cannot start {command[0]}: {error}") from error
        self._buffer = b""

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its group."""
        return self._process.pid

    def request(self, job: str, *, timeout_s: float, **fields: Any) -> dict[str, Any]:
        """Send one job and wait for its answer."""
        line = json.dumps({"job": job, **fields}).encode() + b"\n"
        pipe = self._process.stdin
        try:
            if pipe is None or pipe.closed:
                raise BrokenPipeError("the pipe is closed")
            pipe.write(line)
            pipe.flush()
        except OSError as error:
            raise self._died(job) from error
        answer = json.loads(self._read_line(job, timeout_s))
        if "error" in answer:
            raise _as_error(job, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def close(self) -> None:
        """End the process: by closing its input, then by force."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._kill()
        self._log.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _read_line(self, job: str, timeout_s: float) -> bytes:
        out = self._process.stdout
        if out is None or out.closed:
            raise self._died(job)
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    self._kill()
                    raise UnavailableError(
                        f"the device did not finish {job!r} within {timeout_s:g} s and was stopped"
                    )
                piece = os.read(out.fileno(), 1 << 20)
                if not piece:
                    raise self._died(job)
                self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _died(self, job: str) -> UnavailableError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        code = self._process.poll()
        last = ""
        if not self._log.closed:
            self._log.seek(0)
            lines = self._log.read().decode(errors="replace").strip().splitlines()
            last = f": {lines[-1]}" if lines else ""
        return UnavailableError(f"the runner ended (code {code}) during {job!r}{last}")


def _as_error(job: str, error: Mapping[str, str]) -> EdgepruneError:
    """The runner's error as ours, of the same kind where it is one of ours."""
    kind = getattr(errors, error["kind"], None)
    if isinstance(kind, type) and issubclass(kind, EdgepruneError):
        return kind(error["message"])
    return EdgepruneError(f"the runner failed during {job!r}: {error['message']}")

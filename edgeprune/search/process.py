"""A solver process that can be killed, because solvers hang, overrun limits and crash."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgeprune.search.problem import Problem

_START_LIMIT_S = 120.0
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


class SolverDied(Exception):
    """The solver process gave no answer: it crashed, was killed or ran over its time."""


class MilpProcess:
    """Runs MILP jobs one after the other in one child process, started when first needed.

    A child that dies or overruns is ended; the next job starts another one. Use it as a context
    manager around several searches to pay the start-up (about half a second) once.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return None if self._child is None else self._child.pid

    def solve(
        self, problem: Problem, limit_ms: float | None, *, gap: float, time_limit_s: float
    ) -> dict[str, Any]:
        """The answer of `edgeprune.search.milp.solve_milp`, as a mapping.

        Raises:
            SolverDied: There was no answer within the time limit and a quarter more.
        """
        job = {
            "problem": problem.to_json(),
            "limit_ms": limit_ms,
            "gap": gap,
            "time_limit_s": time_limit_s,
        }
        try:
            if self._child is None or self._child.poll() is not None:
                self.close()
                self._child = _start()
                self._exchange(b"", _START_LIMIT_S)
            line = json.dumps(job).encode() + b"\n"
            return self._exchange(line, 1.25 * time_limit_s + 2.0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the child, whatever it is doing."""
        if self._child is None:
            return
        child, self._child = self._child, None
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()

    def _exchange(self, message: bytes, seconds: float) -> dict[str, Any]:
        """Send a message and read one line, never blocking longer than allowed."""
        child = self._child
        if child is None or child.stdin is None or child.stdout is None:
            raise SolverDied("the solver process is not running")
        deadline = time.monotonic() + seconds
        unsent, received = memoryview(message), bytearray()
        while not received.endswith(b"\n"):
            writers = [child.stdin] if unsent else []
            left = deadline - time.monotonic()
            readable, writable, _ = select.select([child.stdout], writers, [], max(left, 0.0))
            if not readable and not writable:
                raise SolverDied(f"the solver gave no answer in {seconds:.0f} s")
            try:
                if writable:
                    unsent = unsent[os.write(child.stdin.fileno(), unsent) :]
            except BrokenPipeError:
                unsent = memoryview(b"")
            if readable:
                chunk = os.read(child.stdout.fileno(), 1 << 16)
                if not chunk:
                    raise SolverDied(f"the solver process ended with code {child.wait()}")
                received += chunk
        reply: dict[str, Any] = json.loads(received)
        return reply


def _start() -> subprocess.Popen[bytes]:
    """A child that imports this very package, whatever the working folder holds."""
    paths = [str(_PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "edgeprune.search.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        # An interrupt from the terminal is the parent's to handle.
        start_new_session=True,
    )
    if child.stdin is not None:
        os.set_blocking(child.stdin.fileno(), False)
    return child

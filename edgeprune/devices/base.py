"""What every device offers: a runner process to talk to, and a way to bring files to it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol


class Runner(Protocol):
    """A process on the device that does one job after the other."""

    def request(self, job: str, *, timeout_s: float, **fields: Any) -> dict[str, Any]:
        """Do one job and give its result.

        Raises:
            InputError: The job's files or options cannot be used.
            UnavailableError: The process died, or did not answer within ``timeout_s``; it is
                gone afterwards.
        """

    def close(self) -> None:
        """End the process; harmless when it is gone."""


class Device(Protocol):
    """A machine that runs artifacts."""

    name: str

    def runner(
        self, environment: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Runner]:
        """A fresh runner process, ended on leaving."""

    def push(self, path: Path) -> str:
        """Make a file (and its siblings of the same stem) readable on the device; its path there.

        Raises:
            UnavailableError: The device cannot be reached.
        """

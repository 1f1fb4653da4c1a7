"""Run a command and make one of its writes fail, or kill it there as a power cut would.

The product has no hook for this: `hook/sitecustomize.py` replaces ``os.replace``, ``os.fsync``
and ``os.write`` when Python starts. Files written by native code (OpenVINO, safetensors) do not
pass through these; `run_on_small_disk` fills a real file system instead.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

HOOK = Path(__file__).parent / "hook"


@dataclass(frozen=True)
class Fault:
    """What happens at which call.

    Attributes:
        call: ``replace`` is the last step of an atomic write, ``fsync`` the one before,
            ``write`` an append through a file descriptor.
        at: Which call, counted from 1.
        effect: ``kill_before`` and ``kill_after`` the call; ``tear`` writes half of the data and
            kills (``write`` only); ``full`` raises ENOSPC from this call on.
    """

    call: Literal["replace", "fsync", "write"] = "replace"
    at: int = 1
    effect: Literal["kill_before", "kill_after", "tear", "full"] = "kill_before"


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: Exit code, -9 when it was killed.
        stdout: Its standard output.
        stderr: Its standard error.
        calls: The watched calls in order, such as ``replace /run/report.json``.
    """

    code: int
    stdout: str
    stderr: str
    calls: tuple[str, ...] = ()

    def count(self, call: str) -> int:
        """How often a call was made."""
        return sum(line.split(" ", 1)[0] == call for line in self.calls)


def run(
    command: Sequence[str],
    under: Path,
    fault: Fault | None = None,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 600.0,
) -> Outcome:
    """Run a Python command, counting its writes below ``under``; with a fault, break one.

    Run it without a fault first: ``outcome.count("replace")`` says how many faults there are.

    Args:
        command: A Python program or console script; only this process is affected, not those
            that it starts.
        under: Folder whose writes count.
        fault: What to break, if anything.
        cwd: Working folder.
        env: Changes to the environment.
        timeout_s: Seconds after which the command is killed and `subprocess.TimeoutExpired` raised.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "calls"
        plan = {
            "parent": os.getpid(),
            "under": str(under.resolve()),
            "log": str(log),
            "fault": None if fault is None else asdict(fault),
        }
        settings = {**os.environ, **(env or {}), "WRITE_FAULT_PLAN": json.dumps(plan)}
        paths = [str(HOOK), *filter(None, [settings.get("PYTHONPATH")])]
        settings["PYTHONPATH"] = os.pathsep.join(paths)
        done = subprocess.run(
            command, cwd=cwd, env=settings, capture_output=True, text=True, timeout=timeout_s
        )
        # The log exists as soon as the hook is armed; without it nothing would be tested.
        calls = tuple(log.read_text(encoding="utf-8").splitlines())
    return Outcome(done.returncode, done.stdout, done.stderr, calls)


@cache
def small_disks_available() -> bool:
    """Whether this machine lets a user mount a file system in a name space of their own."""
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=64k none /tmp"]
    return subprocess.run(probe, capture_output=True).returncode == 0


def run_on_small_disk(
    command: Sequence[str],
    folder: Path,
    size_bytes: int,
    *,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 600.0,
) -> Outcome:
    """Run any command with a file system of this size on ``folder``, which really runs full.

    What the command wrote there is gone afterwards. See `small_disks_available`.
    """
    script = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@"'
    wrapped = ["unshare", "-rm", "sh", "-c", script, "sh", str(size_bytes), str(folder), *command]
    done = subprocess.run(
        wrapped,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)

"""The local device: answers, errors of the right kind, timeouts, death of the runner."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from edgeprune.devices import device
from edgeprune.devices.local import LocalDevice, PipeRunner
from edgeprune.errors import InputError, UnavailableError


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_unknown_transport_names_the_closest() -> None:
    with pytest.raises(InputError, match="did you mean 'local'"):
        device("locl")


def test_hello_tells_machine_and_versions() -> None:
    with device("local").runner() as runner:
        answer = runner.request("hello", timeout_s=60, runtime_name="openvino")
        assert answer["unavailable"] is None
        assert answer["versions"]["openvino"]
        assert answer["machine"]["cores"] == os.cpu_count()
        assert runner.request("reference", timeout_s=10)["us"] > 0


def test_errors_keep_their_kind_and_the_runner_lives_on(tmp_path: Path) -> None:
    options = {"threads": 1, "precision": "default", "profile": False}
    with LocalDevice().runner() as runner:
        with pytest.raises(InputError, match="not there"):
            runner.request(
                "load",
                timeout_s=60,
                key="a",
                runtime_name="openvino",
                artifact=str(tmp_path / "none.xml"),
                options=options,
                inputs=str(tmp_path / "none.npz"),
            )
        with pytest.raises(InputError, match="nothing is loaded"):
            runner.request("time", timeout_s=10, key="a", warmup_ms=0, iterations=1)
        for job in ("unheard_of", "_session", "__init__"):
            with pytest.raises(InputError, match="unknown job"):
                runner.request(job, timeout_s=10)
        assert runner.request("state", timeout_s=10)["time"]


def test_an_answer_that_does_not_come_is_cut_off() -> None:
    runner = PipeRunner(["sleep", "60"], dict(os.environ))
    begin = time.monotonic()
    with pytest.raises(UnavailableError, match=r"within 0\.3 s"):
        runner.request("state", timeout_s=0.3)
    assert time.monotonic() - begin < 5
    assert _gone(runner.pid)
    with pytest.raises(UnavailableError):
        runner.request("state", timeout_s=0.3)
    runner.close()


def test_a_runner_killed_in_the_middle_is_reported() -> None:
    with LocalDevice().runner() as runner:
        runner.request("state", timeout_s=60)
        os.kill(runner.pid, signal.SIGKILL)
        with pytest.raises(UnavailableError, match="ended"):
            runner.request("state", timeout_s=10)


def test_leaving_ends_the_process_even_when_it_is_busy() -> None:
    with LocalDevice().runner() as runner:
        runner.request("state", timeout_s=60)
        pid = runner.pid
    assert _gone(pid)
    stubborn = PipeRunner(["sh", "-c", "trap '' TERM HUP; sleep 60 & wait"], dict(os.environ))
    stubborn.close()
    assert _gone(stubborn.pid)


def test_a_command_that_does_not_exist_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match="cannot start"):
        PipeRunner(["/nonexistent/python"], dict(os.environ))


def test_what_the_runner_prints_does_not_disturb_answers(tmp_path: Path) -> None:
    # A damaged archive makes numpy raise from deep inside; the answer must still be one line.
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 not really")
    with LocalDevice().runner() as runner, pytest.raises(InputError):
        runner.request("predict", timeout_s=60, key="a", inputs=str(tmp_path / "x.npz"), outputs="")
    np.savez(tmp_path / "fine.npz", **{"0": np.zeros(3)})

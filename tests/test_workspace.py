"""The run folder: one owner, one task, nothing half-written, whatever kills a run."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune import atomic
from edgeprune.atomic import PARTIAL, atomic_path, atomic_write_json, atomic_write_text
from edgeprune.errors import WorkspaceError
from edgeprune.workspace import Workspace, key_of

MINE = {"task": "digits", "device": "x86"}

HOLD = """
import sys, time
from edgeprune.workspace import Workspace
with Workspace(sys.argv[1], {"task": "digits", "device": "x86"}) as space:
    print("open", flush=True)
    time.sleep(60)
"""

# Writes forever: a file of one repeated letter and the stage record of the same letter.
WRITE = """
import sys
from edgeprune.atomic import atomic_write_text
from edgeprune.workspace import Workspace
with Workspace(sys.argv[1], {"task": "digits", "device": "x86"}) as space:
    print("open", flush=True)
    for number in range(10**6):
        letter = chr(97 + number % 26)
        stage = space.stage("s", {"n": 1})
        atomic_write_text(stage.folder / "data", letter * 200_000)
        stage.finish(letter * 1000)
"""


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_finished_stage_is_found_again_and_other_inputs_are_not(tmp_path: Path) -> None:
    with Workspace(tmp_path / "run", MINE) as space:
        stage = space.stage("profile", {"levels": [1, 2], "model": "m"})
        assert not stage.done
        (stage.folder / "file").write_text("x")
        stage.finish({"ms": 1.5})
    with Workspace(tmp_path / "run", MINE) as space:
        again = space.stage("profile", {"model": "m", "levels": [1, 2]})
        assert again.done and again.result == {"ms": 1.5}
        assert (again.folder / "file").read_text() == "x"
        assert not space.stage("profile", {"levels": [1, 3], "model": "m"}).done
        assert not space.stage("other", {"levels": [1, 2], "model": "m"}).done


def test_an_unfinished_or_damaged_stage_has_no_result(tmp_path: Path) -> None:
    with Workspace(tmp_path, MINE) as space:
        stage = space.stage("s", {})
        with pytest.raises(WorkspaceError, match="not finished"):
            _ = stage.result
        stage.finish(1)
        (stage.folder / "stage.json").write_text('{"resu')
        with pytest.raises(WorkspaceError, match="damaged"):
            _ = stage.result


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_the_key_does_not_depend_on_the_order_of_inputs(inputs: dict[str, object]) -> None:
    assert key_of(inputs) == key_of(dict(reversed(inputs.items())))
    assert key_of(inputs) != key_of({**inputs, "further": 1})


def test_two_runs_in_one_folder_are_refused_until_the_first_dies(tmp_path: Path) -> None:
    process = start(HOLD, tmp_path)
    try:
        with pytest.raises(WorkspaceError, match=f"in use by process {process.pid}"):
            Workspace(tmp_path, MINE)
    finally:
        kill(process)
    Workspace(tmp_path, MINE).close()


@pytest.mark.parametrize(
    "other", [{"task": "digits", "device": "arm"}, {"task": "t", "device": "x86"}]
)
def test_a_folder_of_another_task_or_device_is_refused(
    tmp_path: Path, other: dict[str, str]
) -> None:
    Workspace(tmp_path, MINE).close()
    with pytest.raises(WorkspaceError, match="belongs to"):
        Workspace(tmp_path, other)
    Workspace(tmp_path, MINE).close()


def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(WorkspaceError, match="thesis.txt"):
        Workspace(tmp_path, MINE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_identity_and_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(WorkspaceError, match="damaged"):
        Workspace(tmp_path, MINE)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="--out"):
        Workspace(tmp_path / "file" / "run", MINE)


def test_kill_9_at_any_time_leaves_whole_files(tmp_path: Path) -> None:
    for number in range(12):
        process = start(WRITE, tmp_path)
        time.sleep(0.01 + 0.013 * number)
        kill(process)
        with Workspace(tmp_path, MINE) as space:
            stage = space.stage("s", {"n": 1})
            data = stage.folder / "data"
            if data.exists():
                text = data.read_text()
                assert len(text) == 200_000 and len(set(text)) == 1
            if stage.done:
                assert len(stage.result) == 1000
            assert not list(tmp_path.rglob(f"{PARTIAL}-*"))


def test_a_failed_write_keeps_the_old_file_and_leaves_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    atomic_write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="broken"), atomic_path(path) as partial:
        partial.write_text("half")
        raise ValueError("broken")
    with pytest.raises(ValueError, match="JSON"):
        atomic_write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "--out")]
)
def test_a_full_disk_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    path = tmp_path / "file"
    atomic_write_text(path, "old")

    def fail(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(WorkspaceError, match=words):
        atomic_write_text(path, "new")
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="disk is full"), atomic_path(tmp_path / "x"):
        Path("/dev/full").write_text("x" * 100_000)

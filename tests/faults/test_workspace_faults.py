"""The run folder survives death and a full disk at every single write."""

import json
import sys
from pathlib import Path

import pytest
from inject import Fault, Outcome, run, run_on_small_disk, small_disks_available

from edgeprune.workspace import Workspace

# Three stages, each with a file and a result that the next one reads; run again, it resumes.
PROGRAM = """
import sys
from pathlib import Path
from edgeprune.atomic import atomic_write_text
from edgeprune.errors import EdgepruneError
from edgeprune.workspace import Workspace

def stage(workspace, name, before):
    stage = workspace.stage(name, {"before": before})
    if not stage.done:
        print("working on", name)
        atomic_write_text(stage.folder / "data.txt", f"{before}+{name}" * 2000)
        stage.finish({"value": f"{before}+{name}"})
    assert (stage.folder / "data.txt").read_text() == f"{before}+{name}" * 2000
    return stage.result["value"]

try:
    with Workspace(Path(sys.argv[1]), {"task": "t", "device": "d"}) as workspace:
        value = "start"
        for name in ("capture", "table", "plan"):
            value = stage(workspace, name, value)
        atomic_write_text(workspace.folder / "report.json", value)
except EdgepruneError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""
# run.json, two for each stage, and the report.
WRITES = 8


def attempt(folder: Path, fault: Fault | None = None) -> Outcome:
    return run([sys.executable, "-c", PROGRAM, str(folder)], folder, fault, timeout_s=60)


def contents(folder: Path) -> dict[str, str]:
    """All files but the lock, without the times in them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != ".lock":
            text = path.read_text(encoding="utf-8")
            if path.name == "stage.json":
                text = json.dumps({k: v for k, v in json.loads(text).items() if k != "finished"})
            found[str(path.relative_to(folder))] = text
    return found


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    outcome = attempt(folder)
    assert outcome.code == 0, outcome.stderr
    assert outcome.count("replace") == WRITES
    assert outcome.count("fsync") == 2 * WRITES
    return contents(folder)


@pytest.mark.parametrize("effect", ["kill_before", "kill_after"])
@pytest.mark.parametrize("at", range(1, WRITES + 1))
def test_killed_at_any_write_it_resumes(
    at: int, effect: str, tmp_path: Path, unbroken: dict[str, str]
) -> None:
    folder = tmp_path / "run"
    broken = attempt(folder, Fault("replace", at, effect))  # type: ignore[arg-type]
    assert broken.code == -9
    assert broken.count("replace") == at
    outcome = attempt(folder)
    assert outcome.code == 0, outcome.stderr
    assert contents(folder) == unbroken
    # What had been finished is not done again.
    finished = [c for c in broken.calls if c.startswith("replace") and c.endswith("stage.json")]
    lost = effect == "kill_before" and bool(finished) and broken.calls[-1] == finished[-1]
    assert outcome.stdout.count("working on") == 3 - len(finished) + lost


def test_killed_again_and_again_it_gets_there(tmp_path: Path, unbroken: dict[str, str]) -> None:
    folder = tmp_path / "run"
    for _ in range(20):
        # Two writes are let through, which is one stage.
        outcome = attempt(folder, Fault("replace", 3, "kill_before"))
        if outcome.code == 0:
            break
        assert outcome.code == -9
    assert outcome.code == 0, outcome.stderr
    assert contents(folder) == unbroken


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("at", range(1, WRITES + 1))
def test_a_disk_that_runs_full_is_one_line_and_resumes(
    at: int, call: str, tmp_path: Path, unbroken: dict[str, str]
) -> None:
    folder = tmp_path / "run"
    outcome = attempt(folder, Fault(call, at, "full"))  # type: ignore[arg-type]
    assert outcome.code == 2, outcome.stderr
    assert outcome.stderr.startswith("error: the disk is full: cannot write ")
    assert outcome.stderr.count("\n") == 1
    assert not list(folder.rglob(".partial-*"))
    assert attempt(folder).code == 0
    assert contents(folder) == unbroken


@pytest.mark.skipif(not small_disks_available(), reason="no file system can be mounted here")
@pytest.mark.parametrize("size_kib", [4, 16, 40, 80, 120, 400])
def test_a_small_disk_is_one_line(size_kib: int, tmp_path: Path) -> None:
    """A real one, which native code meets as well; the whole run needs less than 400 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(disk / "run")]
    outcome = run_on_small_disk(command, disk, size_kib * 1024, timeout_s=60)
    if size_kib == 400:
        assert outcome.code == 0, outcome.stderr
        return
    assert outcome.code == 2, outcome.stderr
    assert outcome.stderr.startswith("error: ")
    assert "Traceback" not in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_the_lock_is_free_after_a_kill(tmp_path: Path) -> None:
    attempt(tmp_path / "run", Fault("replace", 3, "kill_before"))
    with Workspace(tmp_path / "run", {"task": "t", "device": "d"}) as workspace:
        assert not list(workspace.folder.rglob(".partial-*"))


def test_an_append_can_be_torn(tmp_path: Path) -> None:
    """The tool itself: half of the second append is there, and the process is dead."""
    target = tmp_path / "log"
    program = (
        "import os, sys\n"
        "file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)\n"
        "for line in (b'first 8\\n', b'second 9\\n', b'third\\n'): os.write(file, line)\n"
    )
    outcome = run([sys.executable, "-c", program, str(target)], tmp_path, Fault("write", 2, "tear"))
    assert outcome.code == -9
    assert target.read_bytes() == b"first 8\nseco"


def test_helper_processes_and_other_folders_are_left_alone(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    program = (
        "import os, subprocess, sys\n"
        "move = 'import os, sys; open(sys.argv[1], \"w\").close();'"
        " 'os.replace(sys.argv[1], sys.argv[1] + \".done\")'\n"
        "for folder in sys.argv[1:]:\n"
        "    subprocess.run([sys.executable, '-c', move, folder + '/child'], check=True)\n"
        "open(sys.argv[2] + '/own', 'w').close()\n"
        "os.replace(sys.argv[2] + '/own', sys.argv[2] + '/own.done')\n"
    )
    command = [sys.executable, "-c", program, str(inside), str(outside)]
    outcome = run(command, inside, Fault("replace", 1, "kill_before"))
    assert (outcome.code, outcome.calls) == (0, ())
    assert (inside / "child.done").exists()
    assert (outside / "own.done").exists()

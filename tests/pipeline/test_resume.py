"""A run that is killed and started again ends where an unbroken one does."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import Start, command, measurements_only

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
from inject import Fault, run

_RESULTS = ("1.3x/plan.yaml", "1.3x/weights.safetensors", "1.3x/model.onnx")


def killed_and_resumed(
    folder: Path, fault: Fault, start: Start, environment: Mapping[str, str]
) -> bool:
    """Kill a run at a write, finish it, and compare with an unbroken run on the same figures.

    Returns:
        Whether the fault was reached at all.
    """
    broken = folder / "broken"
    outcome = run(command(broken), broken.parent, fault, env=environment, timeout_s=900)
    if outcome.code in (0, 3):
        return False
    assert outcome.code == -9, outcome.stderr
    resumed = start(broken)
    assert resumed.returncode in (0, 3), resumed.stderr
    whole = folder / "whole"
    measurements_only(broken, whole)
    unbroken = start(whole)
    assert unbroken.returncode in (0, 3), unbroken.stderr
    for name in _RESULTS:
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
    return True


def test_killed_in_the_middle(tmp_path: Path, start: Start, environment: Mapping[str, str]) -> None:
    assert killed_and_resumed(tmp_path, Fault("replace", 6), start, environment)


@pytest.mark.slow
@pytest.mark.parametrize("effect", ["kill_before", "kill_after"])
def test_killed_at_every_write(
    tmp_path: Path, start: Start, environment: Mapping[str, str], effect: str
) -> None:
    at = 1
    while True:
        folder = tmp_path / str(at)
        folder.mkdir()
        fault = Fault("replace", at, effect)  # type: ignore[arg-type]
        if not killed_and_resumed(folder, fault, start, environment):
            break
        at += 1
    assert at > 8


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_loses_nothing(
    tmp_path: Path, start: Start, environment: Mapping[str, str]
) -> None:
    out = tmp_path / "run"
    fault = Fault("replace", 5, "full")
    outcome = run(command(out), tmp_path, fault, env=environment, timeout_s=900)
    assert outcome.code == 2
    assert "disk is full" in outcome.stderr.strip().splitlines()[-1]
    resumed = start(out)
    assert resumed.returncode in (0, 3), resumed.stderr

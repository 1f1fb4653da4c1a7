"""A run that is killed and started again ends where an unbroken one does."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import Start, command, measurements_only

from edgeprune.plan import load_plan

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


def test_a_final_miss_is_planned_again_and_remembered(
    finished: tuple[Path, subprocess.CompletedProcess[str]], start: Start, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    before = load_plan(out / "1.3x" / "plan.yaml")
    (trials,) = out.glob("stages/loop-1.3x*/trials.jsonl")
    last = json.loads(trials.read_text(encoding="utf-8").splitlines()[-1])
    missed = 1.1 * last["dense"] / 1.3
    final = {**last, "median": missed, "upper": 1.01 * missed, "final": True}
    with trials.open("a", encoding="utf-8") as file:
        file.write(json.dumps(final) + "\n")
    plans = []
    for _ in range(2):
        done = start(out)
        assert done.returncode in (0, 3), done.stderr
        plans.append(load_plan(out / "1.3x" / "plan.yaml"))
    assert plans[0].predicted_ms < before.predicted_ms
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    if report["results"][0]["met"]:
        assert plans[0] == plans[1]

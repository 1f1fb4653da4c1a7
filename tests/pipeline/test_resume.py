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


def ends_as_unbroken(broken: Path, start: Start) -> None:
    """Compare a finished run with an unbroken one on the same measurements."""
    whole = broken.parent / "whole"
    measurements_only(broken, whole)
    unbroken = start(whole)
    assert unbroken.returncode in (0, 3), unbroken.stderr
    for name in _RESULTS:
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
def test_killed_in_the_middle(tmp_path: Path, start: Start, environment: Mapping[str, str]) -> None:
    broken = tmp_path / "broken"
    outcome = run(command(broken), tmp_path, Fault("replace", 6), env=environment, timeout_s=900)
    assert outcome.code == -9, outcome.stderr
    resumed = start(broken)
    assert resumed.returncode in (0, 3), resumed.stderr
    ends_as_unbroken(broken, start)


@pytest.mark.slow
@pytest.mark.parametrize("effect", ["kill_before", "kill_after"])
def test_killed_at_every_write(
    tmp_path: Path, start: Start, environment: Mapping[str, str], effect: str
) -> None:
    """One run that dies at each of its writes in turn, and is started again each time.

    All but those of the profile, whose own tests kill it.
    """
    broken = tmp_path / "broken"
    options = ("--target-speedup", "1.3x", "--recovery", "0.2")
    assert start(broken, *options, "--dry-run").returncode == 0
    died_at: list[str] = []
    at = 1
    while True:
        fault = Fault("replace", at, effect)  # type: ignore[arg-type]
        outcome = run(command(broken), tmp_path, fault, env=environment, timeout_s=900)
        if outcome.code in (0, 3):
            break
        assert outcome.code == -9, outcome.stderr
        # Some writes come again at every start, and one that was killed before it happened too.
        at = at + 1 if outcome.calls[-1] in died_at else 1
        died_at.append(outcome.calls[-1])
    assert len(set(died_at)) > 12
    ends_as_unbroken(broken, start)


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


def test_trials_of_another_course_do_not_stand_in_the_way(
    finished: tuple[Path, subprocess.CompletedProcess[str]], start: Start, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    (trials,) = out.glob("stages/loop-1.3x*/trials.jsonl")
    lines = trials.read_text(encoding="utf-8").splitlines(keepends=True)
    other = json.dumps({**json.loads(lines[0]), "plan": "of other settings"}) + "\n"
    trials.write_text(other + "".join(lines), encoding="utf-8")
    assert start(out).returncode in (0, 3)
    found = trials.read_text(encoding="utf-8")
    assert "of other settings" not in found
    assert start(out).returncode in (0, 3)
    assert trials.read_text(encoding="utf-8").startswith(found)


@pytest.mark.slow
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

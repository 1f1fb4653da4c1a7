"""The whole line on a small network: what a finished run holds, and how others fail."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from conftest import HERE, Start
from small_task import Task

import edgeprune
from edgeprune.errors import TargetMissed
from edgeprune.graph.capture import capture
from edgeprune.graph.network import analyse
from edgeprune.graph.weights import load_weights
from edgeprune.plan import load_plan

Finished = tuple[Path, subprocess.CompletedProcess[str]]


def report(folder: Path) -> dict:  # type: ignore[type-arg]
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_the_report_holds_what_is_promised(finished: Finished) -> None:
    folder, _ = finished
    record = report(folder)
    assert {"edgeprune", "task", "device", "runtime", "threads", "fingerprint"} <= set(record)
    for row in (record["dense"], record["dense_int8"], *record["results"]):
        assert {"median", "p95", "ci95"} <= set(row["latency_ms"])
        assert (folder / row["artifact"]).is_file()
        assert row["size_bytes"] > 0
        assert 0 <= row["quality"] <= 1
    assert all(0 < record["prunable"][what] <= 1 for what in ("parameters", "time"))
    (row,) = record["results"]
    assert {"target_ms", "met", "predicted_ms", "speedup", "fidelity", "plan"} <= set(row)


def test_the_exit_code_is_what_was_measured(finished: Finished) -> None:
    folder, done = finished
    met = all(row["met"] for row in report(folder)["results"])
    assert done.returncode == (0 if met else 3)


def test_results_go_to_stdout_and_messages_to_stderr(finished: Finished) -> None:
    _, done = finished
    assert "dense" in done.stdout
    assert "..." not in done.stdout
    assert "refining the plan" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_less_time_means_fewer_weights(finished: Finished) -> None:
    folder, _ = finished
    record = report(folder)
    assert record["results"][0]["size_bytes"] < record["dense"]["size_bytes"]
    assert record["results"][0]["fidelity"] > 0.5


def test_plan_and_weights_rebuild_what_the_onnx_file_computes(finished: Finished) -> None:
    folder, _ = finished
    task = Task()
    network = analyse(capture(task.model(), task.example_inputs(), next(iter(task.batches()))))
    plan = load_plan(folder / "1.3x" / "plan.yaml")
    module = network.shrink(plan.keep)
    load_weights(module, folder / "1.3x" / "weights.safetensors")
    (image,) = task.example_inputs()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    found = ov.Core().compile_model(folder / "1.3x" / "model.onnx", "CPU", exact)(image.numpy())[0]
    with torch.no_grad():
        (wanted,) = module(image)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4 * float(wanted.abs().max()))


def test_the_tasks_own_module_goes_on_from_the_run(finished: Finished) -> None:
    folder, _ = finished
    task, member = Task(), folder / "1.3x"
    (row,) = report(folder)["results"]
    assert row["own_module"]["sizes"] == "1.3x/sizes.json"
    assert "load_shrunk" in (member / "README.md").read_text(encoding="utf-8")
    network = analyse(capture(task.model(), task.example_inputs(), next(iter(task.batches()))))
    graph = network.shrink(load_plan(member / "plan.yaml").keep)
    load_weights(graph, member / "weights.safetensors")
    model = edgeprune.load_shrunk(task.model(), member)
    assert type(model) is type(task.model())
    image = next(iter(task.batches()))[0]
    with torch.no_grad():
        torch.testing.assert_close(model(image), graph(image)[0], rtol=1e-4, atol=1e-4)


def test_a_finished_run_is_not_done_again(finished: Finished, start: Start) -> None:
    folder, _ = finished
    before = (folder / "1.3x" / "weights.safetensors").read_bytes()
    plan = (folder / "1.3x" / "plan.yaml").read_bytes()
    again = start(folder)
    assert again.returncode in (0, 3), again.stderr
    assert (folder / "1.3x" / "weights.safetensors").read_bytes() == before
    assert (folder / "1.3x" / "plan.yaml").read_bytes() == plan
    for stage in ("profiling", "order of removal", "recovering"):
        assert stage not in again.stderr
    if again.returncode == 0:
        assert "timing" not in again.stderr


def test_other_settings_and_back_leave_the_files_that_were_judged(
    finished: Finished, start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    names = ("weights.safetensors", "model.onnx", "model.bin")
    before = {name: (folder / "1.3x" / name).read_bytes() for name in names}
    recipe = tmp_path / "no_refit.yaml"
    text = (Path(__file__).parent / "small_recipe.yaml").read_text(encoding="utf-8")
    recipe.write_text(text.replace("refit: {", "refit: {enabled: false, "), encoding="utf-8")
    between = start(folder, "--target-speedup", "1.3x", "--recipe", str(recipe))
    assert between.returncode in (0, 3), between.stderr
    assert (folder / "1.3x" / names[0]).read_bytes() != before[names[0]]
    after = start(folder)
    assert after.returncode in (0, 3), after.stderr
    if (folder / "1.3x" / "plan.yaml").read_text() == (finished[0] / "1.3x/plan.yaml").read_text():
        for name in names:
            assert (folder / "1.3x" / name).read_bytes() == before[name], name


def test_nothing_that_only_served_the_way_is_left(finished: Finished) -> None:
    folder, _ = finished
    left = {path.name for path in (folder / "stages").rglob("*")}
    assert not [name for name in left if name.startswith(("shape-", "answers", "best-"))]


def test_the_report_says_how_a_member_was_trained(finished: Finished) -> None:
    (row,) = report(finished[0])["results"]
    assert any("learning rate" in note for note in row["notes"])


QUALITIES = {
    "raise KeyError('labels')": "raised KeyError: 'labels'",
    "return float('nan')": "returned nan",
}


@pytest.mark.parametrize("body", QUALITIES)
def test_a_quality_that_fails_is_one_line(start: Start, tmp_path: Path, body: str) -> None:
    text = (Path(__file__).parent / "small_task.py").read_text(encoding="utf-8")
    begin = text.index("        images = self._images(40, 1000)")
    end = text.index("    def _images")
    task = tmp_path / "task.py"
    task.write_text(f"{text[:begin]}        {body}\n\n{text[end:]}", encoding="utf-8")
    done = start(tmp_path / "run", "--target-speedup", "1.3x", "--task", str(task))
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("edgeprune: task 'task': quality()") and QUALITIES[body] in last


def test_a_recipe_that_offers_nothing_of_this_model_is_refused(
    start: Start, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("version: 1\nsearch: {kinds: [heads]}\n", encoding="utf-8")
    done = start(tmp_path / "run", "--target-speedup", "1.3x", "--recipe", str(recipe))
    assert done.returncode == 2
    assert "offers heads only" in done.stderr.strip().splitlines()[-1]


def test_a_run_folder_of_another_task_is_refused(finished: Finished, start: Start) -> None:
    folder, _ = finished
    other = start(folder, "--target-speedup", "2x", "--task", "digits")
    assert other.returncode == 2
    assert "belongs to task" in other.stderr
    assert other.stderr.count("\n") == 1


def test_a_target_out_of_reach_names_the_fastest_time(start: Start, tmp_path: Path) -> None:
    done = start(tmp_path / "run", "--target-latency", "1us")
    assert done.returncode == 3
    assert "out of reach" in done.stderr
    assert "the fastest plan takes" in done.stderr
    assert not (tmp_path / "run" / "report.json").exists()


def test_a_dry_run_says_what_is_reachable_and_stops(start: Start, tmp_path: Path) -> None:
    done = start(tmp_path / "run", "--target-speedup", "1.3x", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fastest_ms"] < found["dense_ms"]
    assert 0 < found["prunable"]["time"] <= 1
    assert found["minutes"] > 0
    assert "of work" in done.stderr
    assert not (tmp_path / "run" / "1.3x").exists()


def test_the_python_interface_returns_what_the_report_holds(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]
) -> None:
    folder, _ = finished
    monkeypatch.setenv("XDG_CACHE_HOME", environment["XDG_CACHE_HOME"])
    here = Path(__file__).parent
    try:
        found = edgeprune.compress(
            here / "small_task.py",
            "x86",
            target_speedup="1.3x",
            recipe=here / "small_recipe.yaml",
            recovery_minutes=0.2,
            out=folder,
        )
    except TargetMissed:
        assert not report(folder)["results"][0]["met"]
    else:
        assert found == report(folder)
        assert found["results"][0]["met"]


def test_what_a_recipe_settles_holds_in_the_plan(start: Start, tmp_path: Path) -> None:
    settled = {"keep": {"blocks.0:*": 0.5}, "freeze": ["blocks.2.*"], "minimum": {"blocks.1:*": 24}}
    recipe = tmp_path / "settled.yaml"
    text = (HERE / "small_recipe.yaml").read_text(encoding="utf-8")
    recipe.write_text(f"{text}structures: {json.dumps(settled)}\n", encoding="utf-8")
    done = start(tmp_path / "run", "--recipe", str(recipe), "--target-speedup", "1.1x")
    assert done.returncode in (0, 3), done.stderr
    plan = load_plan(tmp_path / "run" / "1.1x" / "plan.yaml")
    assert plan.levels["blocks.0:channels"] == 16
    assert plan.levels.get("blocks.2:channels", 32) == 32
    assert plan.levels["blocks.1:channels"] >= 24


def test_a_target_below_what_is_forced_is_refused(start: Start, tmp_path: Path) -> None:
    recipe = tmp_path / "settled.yaml"
    text = (HERE / "small_recipe.yaml").read_text(encoding="utf-8")
    recipe.write_text(f'{text}structures: {{keep: {{"*": 1}}}}\n', encoding="utf-8")
    done = start(tmp_path / "run", "--recipe", str(recipe), "--target-speedup", "4x")
    assert done.returncode == 3 and "out of reach" in done.stderr

"""A run that may choose formats: what it delivers is what the plan says, and opens anywhere."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from formats_task import Task

from edgeprune.formats import parse_format
from edgeprune.graph.blocks import by_block
from edgeprune.graph.capture import capture
from edgeprune.graph.layers import weighted_layers
from edgeprune.graph.network import analyse
from edgeprune.graph.simulation import simulate
from edgeprune.graph.weights import load_weights
from edgeprune.plan import load_plan

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def run(environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has to be so fast that formats are needed."""
    out = tmp_path_factory.mktemp("formats") / "run"
    task, recipe = HERE / "formats_task.py", HERE / "formats_recipe.yaml"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "edgeprune", "compress", "--task", str(task)),
            *("--device", "x86", "--recipe", str(recipe), "--out", str(out)),
            *("--target-speedup", "3x", "--recovery", "0.2"),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode in (0, 3), done.stderr
    return out


def test_plan_and_weights_rebuild_what_the_artifact_computes(run: Path) -> None:
    task = Task()
    network = analyse(capture(task.model(), task.example_inputs(), next(iter(task.batches()))))
    plan = load_plan(run / "3x" / "plan.yaml")
    formats = {layer: parse_format(name) for layer, name in plan.formats.items()}
    module = network.shrink(plan.keep)
    there = {name: f for name, f in formats.items() if name in weighted_layers(module)}
    assert there
    load_weights(module, run / "3x" / "weights.safetensors")
    (x,) = task.example_inputs()
    with torch.no_grad():
        (wanted,) = simulate(module, there)(x)
    from edgeprune.runtimes import CompileOptions, runtime

    session = runtime("openvino").load(run / "3x" / "model.xml", CompileOptions(precision="f32"))
    found = torch.from_numpy(np.array(session.run((x.numpy(),))[0]))
    assert float((found - wanted).norm() / wanted.norm()) < 0.03


def test_recovery_leaves_the_zeros_where_they_are(run: Path) -> None:
    plan = load_plan(run / "3x" / "plan.yaml")
    task = Task()
    network = analyse(capture(task.model(), task.example_inputs(), next(iter(task.batches()))))
    module = network.shrink(plan.keep)
    load_weights(module, run / "3x" / "weights.safetensors")
    for name, layer in weighted_layers(module).items():
        format_ = parse_format(plan.formats.get(name, "dense"))
        if format_.sparse:
            weight = module.get_parameter(layer.weight)
            block = format_.fitted(len(weight)).block
            assert block is not None
            zeros = 1 - float(by_block(weight, block).any(-1).any(-1).float().mean())
            assert zeros == pytest.approx(format_.sparsity, abs=0.02)


def test_the_report_says_what_every_format_would_save(run: Path) -> None:
    record = json.loads((run / "report.json").read_text())
    rows = record["results"][0]["formats"]
    assert rows
    for row in rows:
        assert len(row["layers"]) == len(row["chosen"])
        assert {name.split("-")[0] for name in row["offered"]} == {"int8"}
        assert all(isinstance(saved, float) for saved in row["offered"].values())
    both = record["results"][0]["alone"]
    assert set(both) == {"structures", "formats"}
    planned = record["results"][0]["output_error_planned"]
    assert all(planned <= row["output_error"] for row in both.values() if row["reachable"])
    shown = subprocess.run(
        [sys.executable, "-m", "edgeprune", "report", str(run)], capture_output=True, text=True
    )
    assert "formats of 3x" in shown.stdout


def test_the_program_beside_it_runs(run: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(run / "3x" / "run.py")], capture_output=True, text=True, timeout=120
    )
    assert "median" in done.stdout, done.stderr

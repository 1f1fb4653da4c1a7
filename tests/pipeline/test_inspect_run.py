"""``edgeprune inspect`` with a device: times from the table that a run filled."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_times_of_structures_are_parts_of_the_dense_latency(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
    environment: Mapping[str, str],
) -> None:
    arguments = ["--task", str(HERE / "small_task.py"), "--device", "x86", "--json"]
    recipe = ["--recipe", str(HERE / "small_recipe.yaml")]
    done = subprocess.run(
        [sys.executable, "-m", "edgeprune", "inspect", *arguments, *recipe],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "building variant" not in done.stderr, "the run has measured all of it"
    record = json.loads(done.stdout)
    latency = record["latency"]
    assert record["device"] == "x86" and latency["dense_ms"] > 0
    parts = {tuple(part["structures"]): part["ms"] for part in latency["parts"]}
    assert sum(parts.values()) <= latency["dense_ms"] * (1 + 1e-9)
    assert 0 < latency["prunable_ms"] <= sum(parts.values()) * (1 + 1e-9)
    for row in record["structures"]:
        own = sum(ms for names, ms in parts.items() if row["name"] in names)
        assert row["time_ms"] == pytest.approx(own) and own > 0
        assert row["time_share"] == pytest.approx(own / latency["dense_ms"])
        assert row["offered"] == (row["kind"] == "channels")
    # The report of the run took its share from the fitted model; both speak of the same layers.
    report = json.loads((finished[0] / "report.json").read_text())
    share = latency["prunable_ms"] / latency["dense_ms"]
    assert share == pytest.approx(report["prunable"]["time"], abs=0.25)

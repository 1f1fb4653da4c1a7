"""Bench: artifacts are found, equal ones are not told apart, different ones are."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgeprune.devices import device
from edgeprune.errors import InputError
from edgeprune.latency.bench import Mode, bench, describe_state, find_artifacts, find_inputs
from edgeprune.latency.fingerprint import take
from edgeprune.latency.measure import save_inputs, time_interleaved
from edgeprune.latency.reference_sweep import Layer, layer_onnx, measure_sweep
from edgeprune.latency.table import Table
from edgeprune.runtimes import runtime
from edgeprune.target import load_target

SHORT = Mode("quick", seconds=3.0, processes=2, least_samples=30)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("artifacts")
    made = {}
    for name, layer in (
        ("small", Layer("convolution", 24, 32, 32, 3)),
        ("twin", Layer("convolution", 24, 32, 32, 3)),
        ("large", Layer("convolution", 24, 32, 256, 3)),
    ):
        onnx = folder / f"{name}.onnx"
        onnx.write_bytes(layer_onnx(layer))
        made[name] = runtime("openvino").convert(onnx, folder / f"{name}.xml")
    return made


def _bench(chosen: dict[str, Path]) -> dict:
    target, place = load_target("x86"), device("local")
    return bench(place, target, take(place, target), chosen, mode=SHORT)


def test_a_model_against_itself_is_no_difference(artifacts: dict[str, Path]) -> None:
    found = _bench({"small": artifacts["small"], "twin": artifacts["twin"]})
    assert found["comparisons"][0]["verdict"] == "no difference"
    assert found["control"]["against"] == "small"
    assert json.loads(json.dumps(found)) == found
    assert len(found["state"]) == 2 * SHORT.processes
    assert describe_state(found["state"]).startswith("load ")


def test_a_single_artifact_has_nothing_to_be_told_from(artifacts: dict[str, Path]) -> None:
    found = _bench({"small": artifacts["small"]})
    assert found["control"] is None and found["comparisons"] == []


def test_state_is_told_as_far_as_the_device_knows_it() -> None:
    states = [
        {"load": 0.41, "temperature_mc": "48000", "clock_khz": None},
        {"load": 2.1, "temperature_mc": "71000", "clock_khz": None},
    ]
    assert describe_state(states) == "load 0.41 to 2.1, 48 to 71 °C"
    assert describe_state([{"load": 0.0}]) == "load 0 to 0"


def test_a_slower_model_is_called_slower(artifacts: dict[str, Path]) -> None:
    found = _bench({"small": artifacts["small"], "large": artifacts["large"]})
    assert found["comparisons"][0]["verdict"] == "slower"
    row = found["artifacts"][0]
    assert row["ci95_ms"][0] <= row["median_ms"] <= row["ci95_ms"][1] <= row["p95_ms"] * 1.5
    assert row["throughput_per_s"] == pytest.approx(1e3 / row["median_ms"])
    assert row["samples"] >= SHORT.least_samples


def test_all_samples_are_kept_by_round_and_process(artifacts, tmp_path: Path) -> None:
    inputs = save_inputs([np.ones((1, 32, 24, 24), np.float32)], tmp_path / "inputs.npz")
    seen = []
    measurement = time_interleaved(
        device("local"),
        load_target("x86"),
        artifacts,
        inputs,
        seconds=1.0,
        processes=2,
        on_round=seen.append,
    )
    assert {round_.process for round_ in measurement.rounds} == {0, 1}
    assert len(measurement.rounds) >= 6
    assert seen == sorted(seen) and seen[-1] == 1.0
    total = sum(map(len, measurement.samples_ms("small")))
    assert measurement.stats("small").samples == total
    assert measurement.ratio("large", "small")[1] > 1


def test_wrong_inputs_are_an_input_error(artifacts, tmp_path: Path) -> None:
    inputs = save_inputs([np.ones(3), np.ones(3)], tmp_path / "inputs.npz")
    with pytest.raises(InputError, match="1 inputs, 2 were given"):
        time_interleaved(device("local"), load_target("x86"), artifacts, inputs, seconds=0.1)
    inputs = save_inputs([np.ones((8, 32, 24, 24))], tmp_path / "inputs.npz")
    shapes = r"\.xml: input 0 has shape \[8,32,24,24\], the model takes \[1,32,24,24\]"
    with pytest.raises(InputError, match=shapes):
        time_interleaved(device("local"), load_target("x86"), artifacts, inputs, seconds=0.1)
    with pytest.raises(InputError, match="nothing to time"):
        time_interleaved(device("local"), load_target("x86"), {}, inputs, seconds=0.1)


def test_artifacts_of_files_folders_and_runs(artifacts, tmp_path: Path) -> None:
    assert find_artifacts(artifacts["small"], ".xml") == {"small.xml": artifacts["small"]}
    assert set(find_artifacts(artifacts["small"].parent, ".xml")) == {
        "small.xml",
        "twin.xml",
        "large.xml",
    }
    (tmp_path / "x86").mkdir()
    (tmp_path / "x86" / "model.xml").write_text("<net/>")
    save_inputs([np.ones(1)], tmp_path / "inputs.npz")
    members = [{"goal": goal, "artifact": "x86/model.xml"} for goal in ("1.5x", "10 ms")]
    record = {"dense": {"artifact": "x86/model.xml"}, "results": members}
    (tmp_path / "report.json").write_text(json.dumps(record))
    assert list(find_artifacts(tmp_path, ".xml")) == ["dense", "1.5x", "10 ms"]
    assert find_inputs(tmp_path / "x86" / "model.xml") == tmp_path / "inputs.npz"
    record["results"][0]["artifact"] = "gone.xml"
    (tmp_path / "report.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="are gone"):
        find_artifacts(tmp_path, ".xml")
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(InputError, match="not a report"):
        find_artifacts(tmp_path, ".xml")
    with pytest.raises(InputError, match="does not exist"):
        find_artifacts(tmp_path / "none", ".xml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no artifact"):
        find_artifacts(tmp_path / "empty", ".xml")


def test_sweep_measures_once_and_every_kind(tmp_path: Path) -> None:
    target, place = load_target("x86"), device("local")
    fingerprint = take(place, target)
    layers = (
        Layer("matmul", 128, 64, 96),
        Layer("convolution", 8, 16, 24, 3),
        Layer("depthwise", 8, 16, 16, 3),
    )
    table = Table(tmp_path / "t.jsonl", fingerprint)
    rows = measure_sweep(target, place, table, layers)
    assert [row["layer"] for row in rows] == ["matmul", "convolution", "depthwise"]
    assert all(row["median_us"] > 0 and row["gmac_per_s"] > 0 for row in rows)
    before = (tmp_path / "t.jsonl").read_bytes()
    again = measure_sweep(target, place, Table(tmp_path / "t.jsonl", fingerprint), layers)
    assert again == rows
    assert (tmp_path / "t.jsonl").read_bytes() == before


class _KilledTable(Table):
    """Its process dies instead of writing another record."""

    left = 7

    def append(self, kind: str, signature: str, figures: dict) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        super().append(kind, signature, figures)


def test_a_killed_sweep_keeps_every_round_and_measures_what_is_missing(tmp_path: Path) -> None:
    target, place = load_target("x86"), device("local")
    path, fingerprint = tmp_path / "t.jsonl", take(place, target)
    layers = tuple(Layer("matmul", 1, 64, outputs) for outputs in (32, 64, 96))
    with pytest.raises(KeyboardInterrupt):
        measure_sweep(target, place, _KilledTable(path, fingerprint), layers)
    kept = path.read_bytes()
    table = Table(path, fingerprint)
    # Two rounds of all three, and the first of the third round.
    assert [len(table.all("alone", layer.signature)) for layer in layers] == [3, 2, 2]
    assert len(measure_sweep(target, place, table, layers)) == 3
    assert path.read_bytes().startswith(kept)
    counts = {len(table.all("alone", layer.signature)) for layer in layers}
    assert counts == {6}


def test_two_measurements_joined_keep_every_sample_and_their_processes(
    artifacts: dict[str, Path], tmp_path: Path
) -> None:
    inputs = save_inputs([np.ones((1, 32, 24, 24), np.float32)], tmp_path / "inputs.npz")
    first, second = (
        time_interleaved(
            device("local"), load_target("x86"), artifacts, inputs, seconds=0.2, processes=2
        )
        for _ in range(2)
    )
    both = first.joined(second)
    assert both.samples_ms("small") == first.samples_ms("small") + second.samples_ms("small")
    assert {round_.process for round_ in both.rounds} == {0, 1, 2, 3}
    assert {round_.process for round_ in second.rounds} == {0, 1}

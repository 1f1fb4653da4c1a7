"""What a person reads of a run: first the two latencies, then every target, then what went."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeprune.cli.app import run
from edgeprune.plan import Plan, save_plan
from edgeprune.report.card import write_card


def latency(median: float) -> dict[str, Any]:
    return {
        "median": median,
        "p90": median * 1.1,
        "p95": 1.2 * median,
        "ci95": [0.9 * median, median],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder of two targets, one of them missed."""
    results = []
    for goal, ms, met, levels, own_module in [
        ("2x", 4.9, True, {"a": 8, "b": 4}, {"sizes": "2x/sizes.json", "notes": []}),
        ("4x", 2.6, False, {"a": 0, "b": 4}, {"reason": "Net cannot be written back"}),
    ]:
        (tmp_path / goal).mkdir()
        save_plan(Plan(levels=levels), tmp_path / goal / "plan.yaml")
        results.append(
            {
                "goal": goal,
                "target_ms": 10 / float(goal[:-1]),
                "met": met,
                "latency_ms": latency(ms),
                "predicted_ms": ms * 1.01,
                "speedup": 10 / ms,
                "quality": 0.95,
                "fidelity": 0.9,
                "size_bytes": 1_500_000,
                "artifact": f"{goal}/model.xml",
                "plan": f"{goal}/plan.yaml",
                "own_module": own_module,
            }
        )
    record = {
        "edgeprune": "0.1.0",
        "task": {"name": "digits", "settings": {}, "quality_name": "accuracy"},
        "device": "x86",
        "runtime": {"name": "openvino", "openvino": "2026.4.1"},
        "threads": 1,
        "fingerprint": {"key": "abc123", "machine": {"cpu": "some cpu", "governor": None}},
        "dense": {"latency_ms": latency(10.0), "quality": 0.97, "size_bytes": 4e6, "artifact": "d"},
        "dense_int8": {
            "latency_ms": latency(12.0),
            "quality": 0.96,
            "size_bytes": 1e6,
            "artifact": "i",
        },
        "structures": {
            "a": {"kind": "channels", "units": 16},
            "b": {"kind": "heads", "units": 4},
        },
        "frozen": [{"tensor": "w", "operator": "aten.sort", "source": "net.py:3", "reason": "r"}],
        "drifted_rounds": 0,
        "results": results,
    }
    (tmp_path / "report.json").write_text(json.dumps(record))
    return tmp_path


def test_the_first_line_sets_the_two_latencies_side_by_side(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0].startswith("dense 10.000 ms, yours 4.900 ms, same run: 2.04x")
        and "met" in lines[0]
    )
    assert "missed" in lines[1]


def test_every_row_shows_latency_quality_size_and_verdict(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["report", str(folder)])
    out = capsys.readouterr().out
    rows = {line.split("  ")[0].strip(): line for line in out.splitlines()}
    assert all(word in rows["2x"] for word in ("4.900", "4.949", "0.9500", "0.900", "1.50", "yes"))
    assert "no" in rows["4x"].split() and "#" * 16 in rows["dense"] and "#" * 17 not in out
    assert len([c for c in rows["4x"] if c == "#"]) == 4  # the bar is a quarter of the dense one
    assert "int8 is not faster" in out and "aten.sort" in out


def test_what_was_removed_is_listed_and_what_was_not_is_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["report", str(folder)])
    table = capsys.readouterr().out.split("what was removed")[1].splitlines()
    assert "1 of 2" in table[0]
    assert table[2].split() == ["a", "channels", "16", "8", "0"]
    assert len(table) == 3


def test_json_holds_the_record_and_what_was_removed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    removed = shown.pop("removed")
    assert shown == json.loads((folder / "report.json").read_text())
    assert removed == [
        {"structure": "a", "kind": "channels", "units": 16, "kept": {"2x": 8, "4x": 0}}
    ]


def test_a_lost_plan_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "4x" / "plan.yaml").unlink()
    assert run(["report", str(folder)]) == 2
    assert "plan.yaml of target 4x" in capsys.readouterr().err


def test_the_card_has_a_head_the_figures_and_the_versions(folder: Path) -> None:
    record = json.loads((folder / "report.json").read_text())
    text = write_card(folder / "2x", record, record["results"][0]).read_text()
    _, head, body = text.split("---\n", 2)
    hub = yaml.safe_load(head)
    assert hub["library_name"] == "openvino" and "structured-pruning" in hub["tags"]
    assert "base_model_relation" not in hub  # pruned, which the hub has no word for
    for words in ("10.000 ms", "4.900 ms", "2.04x", "accuracy", "0.9500", "2026.4.1", "some cpu"):
        assert words in body, words
    assert "| 2x |" in body and "| 4x |" not in body and "None" not in body


def test_the_own_module_is_explained_where_there_is_one_and_where_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["report", str(folder)])
    assert "4x: Net cannot be written back" in capsys.readouterr().out.splitlines()
    record = json.loads((folder / "report.json").read_text())
    first, second = (write_card(folder, record, row).read_text() for row in record["results"])
    assert 'edgeprune.load_shrunk(build_dense_model(), ".")' in first
    assert "load_shrunk" not in second and "Net cannot be written back." in second

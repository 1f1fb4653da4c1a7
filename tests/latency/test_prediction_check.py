"""What is published of a latency model: every plan, and the median and worst errors."""

import json
from pathlib import Path

import pytest
from check_prediction import show_errors

PLANS = [
    {"plan": f"p{i}", "measured_ms": 1.0, "error_percent": error, "ratio_error_percent": error / 2}
    for i, error in enumerate((-1.0, 2.0, -8.0))
]


def test_the_file_holds_every_plan_and_the_headline_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_errors("digits", PLANS, {"variants": 24}, tmp_path / "errors.json")
    *plans, headline = json.loads((tmp_path / "errors.json").read_text())
    assert plans == [{"task": "digits", **plan} for plan in PLANS]
    assert headline == {
        "task": "digits",
        "plan": "all",
        "plans": 3,
        "median_error_percent": 2.0,
        "worst_error_percent": 8.0,
        "median_ratio_error_percent": 1.0,
        "worst_ratio_error_percent": 4.0,
        "variants": 24,
    }
    printed = capsys.readouterr().out
    assert "p2" in printed and "worst_ratio_error_percent" in printed

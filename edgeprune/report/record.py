"""Reading ``report.json`` of a run folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError

FILE = "report.json"
_NEEDED = ("task", "device", "dense", "results")


def read_report(folder: Path) -> dict[str, Any]:
    """What ``report.json`` of a run folder holds.

    Raises:
        InputError: no run folder, a run that is not finished, or a damaged file.
    """
    path = folder / FILE
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the run folder that --out named")
    if not path.is_file():
        if (folder / "run.json").is_file():
            raise InputError(f"the run in {folder} is not finished; run its command again to go on")
        raise InputError(f"{folder} holds no {FILE}; give the run folder that --out named")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged; run its command again") from error
    if not isinstance(record, dict) or any(key not in record for key in _NEEDED):
        raise InputError(f"{path} is not a report of edgeprune; run its command again")
    return record


def quality_name(record: dict[str, Any]) -> str:
    """What the run's quality numbers measure."""
    task = record["task"]
    return str(task.get("quality_name", "quality")) if isinstance(task, dict) else "quality"


def goal_name(result: Mapping[str, Any]) -> str:
    """What one entry of ``results`` was asked to reach."""
    return str(result.get("goal") or f"{result['target_ms']:.4g} ms")


def task_name(record: dict[str, Any]) -> str:
    """The name of the run's task."""
    task = record["task"]
    return str(task.get("name", "?")) if isinstance(task, dict) else str(task)

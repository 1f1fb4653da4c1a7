"""What every target took out of the network, structure by structure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError
from edgeprune.plan import load_plan
from edgeprune.report.record import goal_name


def removed_table(record: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """One row a structure: its kind, its units, and how many of them each target keeps.

    Args:
        record: The run's report.
        folder: The run folder that holds the plans.

    Returns:
        Rows with ``structure``, ``kind``, ``units`` and ``kept`` (goal to units); structures that
        no target touches are left out.
    """
    levels = {goal_name(result): _levels(result, folder) for result in record["results"]}
    rows = []
    for name, structure in record.get("structures", {}).items():
        units = int(structure["units"])
        kept = {goal: of_goal.get(name, units) for goal, of_goal in levels.items()}
        if any(count < units for count in kept.values()):
            rows.append(
                {"structure": name, "kind": structure["kind"], "units": units, "kept": kept}
            )
    return rows


def _levels(result: Mapping[str, Any], folder: Path) -> Mapping[str, int]:
    path = folder / str(result.get("plan", ""))
    if not path.is_file():
        raise InputError(f"{folder} lacks {path.name} of target {goal_name(result)}; run it again")
    return load_plan(path).levels

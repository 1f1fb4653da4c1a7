"""The formats that a run's targets give to layers, and those that do not pay on the device."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune import console
from edgeprune.report.record import goal_name


def show_formats(record: dict[str, Any]) -> None:
    """Print the formats that every target gives to layers, and those that do not pay."""
    for result in record["results"]:
        rows = [row for row in result.get("formats", []) if set(row["chosen"]) != {"dense"}]
        offered = [row for row in result.get("formats", []) if row["offered"]]
        if not offered:
            continue
        console.show_text(f"\nformats of {goal_name(result)}, and what they save against dense")
        console.show_table(["layer", "format", "saves us"], [_format_row(row) for row in rows])
        for line in (*_refused(offered), *_alone(result)):
            console.show_text(line)


def _format_row(row: Mapping[str, Any]) -> dict[str, Any]:
    names = list(dict.fromkeys(row["chosen"]))
    layers = row["layers"]
    more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
    return {"layer": layers[0] + more, "format": ", ".join(names), "saves us": row["saves_us"]}


def _alone(result: Mapping[str, Any]) -> list[str]:
    """One line on what either kind of alternative would have reached in the same time."""
    found = result.get("alone", {})
    told = [
        f"{kind} alone {row['output_error']:.4f}" if row["reachable"] else f"{kind} alone too slow"
        for kind, row in found.items()
    ]
    planned = result.get("output_error_planned")
    if not told or planned is None:
        return []
    return [f"output error before training: {', '.join(told)}, this plan {planned:.4f}"]


def _refused(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a family that is slower than dense somewhere."""
    places: dict[str, list[str]] = {}
    for row in rows:
        for family in row["refused"]:
            places.setdefault(family, []).append(row["layers"][0])
    return [
        f"{family}: slower than dense in {len(layers)} of {len(rows)} places, such as {layers[0]}"
        for family, layers in places.items()
    ]

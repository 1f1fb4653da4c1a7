"""A run's record as text: first what was won, then every target beside the dense model."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune import console
from edgeprune.report.record import goal_name, quality_name, task_name

_BAR_CELLS = 16


def show_summary(record: dict[str, Any]) -> None:
    """Print the first lines and the table of targets to stdout."""
    for line in headline(record):
        console.show_text(line)
    console.show_text("")
    rows = summary_rows(record)
    quality = quality_name(record)
    columns = ["model", "latency", "ms", "target ms", "predicted ms", "met", "speedup"]
    console.show_table([*columns, quality, "fidelity", "MB"], rows)
    for line in remarks(record):
        console.show_text(line)


def headline(record: dict[str, Any]) -> list[str]:
    """One line a target: ``dense X ms, yours Y ms, same run``."""
    dense = record["dense"]["latency_ms"]["median"]
    lines = []
    for result in record["results"]:
        yours = result["latency_ms"]["median"]
        verdict = "met" if result["met"] else "missed"
        lines.append(
            f"dense {dense:.3f} ms, yours {yours:.3f} ms, same run: {dense / yours:.2f}x, "
            f"target {goal_name(result)} {verdict}"
        )
    device, runtime = record["device"], record.get("runtime")
    name = runtime.get("name", "") if isinstance(runtime, Mapping) else runtime
    threads = record.get("threads", "?")
    lines.append(f"{task_name(record)} on {device} ({name}, threads: {threads})")
    return lines


def summary_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for the dense model, for dense int8 and for every target."""
    quality = quality_name(record)
    dense_ms = record["dense"]["latency_ms"]["median"]
    rows = [_row("dense", record["dense"], quality, dense_ms)]
    if record.get("dense_int8"):
        rows.append(_row("dense int8", record["dense_int8"], quality, dense_ms))
    for result in record["results"]:
        row = _row(goal_name(result), result, quality, dense_ms)
        row["target ms"] = _figure(result["target_ms"])
        row["predicted ms"] = _figure(result.get("predicted_ms"))
        row["met"] = "yes" if result["met"] else "no"
        rows.append(row)
    return rows


def remarks(record: dict[str, Any]) -> list[str]:
    """What deserves a line: int8 that lost or failed, drift, what froze or is not written back."""
    lines = []
    dense = record["dense"]["latency_ms"]["median"]
    int8 = record.get("dense_int8")
    if int8 and int8["latency_ms"]["median"] >= dense:
        lines.append("int8 is not faster than the runtime's default precision on this device")
    if record.get("dense_int8_failure"):
        lines.append(f"dense int8 could not be made: {record['dense_int8_failure']}")
    if record.get("drifted_rounds"):
        lines.append(f"{record['drifted_rounds']} rounds were marked by drift of the machine")
    if shares := record.get("prunable"):
        lines.append(prunable_line(shares))
    for result in record["results"]:
        for part in ("own_module", "open_sizes"):
            if reason := result.get(part, {}).get("reason"):
                lines.append(f"{goal_name(result)}: {reason}")
    frozen = record.get("frozen", [])
    if frozen:
        operators = sorted({str(entry["operator"]) for entry in frozen})
        lines.append(f"{len(frozen)} tensors could not be pruned, by {', '.join(operators)}")
    return lines


def prunable_line(shares: Mapping[str, float]) -> str:
    """The shares of the dense model that can be pruned."""
    return (
        f"prunable: {shares['parameters']:.0%} of the layers' parameters, "
        f"{shares['time']:.0%} of the measured time"
    )


def show_removed(record: dict[str, Any], removed: Sequence[Mapping[str, Any]]) -> None:
    """Print what every target keeps of each structure it touches."""
    if not removed:
        console.show_text("\nnothing was removed")
        return
    goals = list(removed[0]["kept"])
    rows = [
        {
            "structure": row["structure"],
            "kind": row["kind"],
            "units": row["units"],
            **{f"kept {goal}": row["kept"][goal] for goal in goals},
        }
        for row in removed
    ]
    total = len(record.get("structures", {}))
    console.show_text(f"\nwhat was removed ({len(rows)} of {total} structures are touched)")
    columns = ["structure", "kind", "units", *(f"kept {goal}" for goal in goals)]
    console.show_table(columns, rows)


def _row(name: str, entry: Mapping[str, Any], quality: str, dense_ms: float) -> dict[str, Any]:
    latency = entry["latency_ms"]
    low, high = latency["ci95"]
    return {
        "model": name,
        "latency": _bar(latency["median"] / dense_ms),
        "ms": _figure(latency["median"]),
        "95% interval": f"{low:.3f}..{high:.3f}",
        "p95": _figure(latency["p95"]),
        "speedup": f"{dense_ms / latency['median']:.2f}x",
        quality: _figure(entry.get("quality"), 4),
        "fidelity": _figure(entry.get("fidelity")),
        "MB": _figure(entry["size_bytes"] / 1e6, 2),
    }


def _bar(share: float) -> str:
    cells = max(1, round(min(share, 1.0) * _BAR_CELLS))
    return "#" * cells


def _figure(value: Any, digits: int = 3) -> str | None:
    return None if value is None else f"{value:.{digits}f}"

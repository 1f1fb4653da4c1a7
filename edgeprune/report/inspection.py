"""What can be pruned of a network, as text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune import console
from edgeprune.report.layer_lists import short_list

Row = Mapping[str, Any]

# Weights that cannot be pruned, by name; more are counted.
_MOST_LISTED = 12


def show_inspection(record: Row) -> None:
    """Print the structures, what froze, and how a recipe chooses, to stdout."""
    console.show_text(_headline(record))
    rows = record["structures"]
    if rows:
        console.show_text("")
        console.show_table(_columns(record), [_summary(row) for row in rows])
        console.show_text("a leading dot stands for the path in the structure's name")
    if record["frozen"]:
        _show_frozen(record["frozen"])
    if record["unprunable"]:
        _show_unprunable(record["unprunable"], record["parameters"]["total"])
    if record["renormalised"]:
        names = short_list(record["renormalised"])
        console.show_text(f"\nnormalised over the units that stay: {names}")
    for note in record["notes"]:
        console.show_text(f"note: {note}")
    if rows:
        console.show_text(f"\n{_kinds_line(rows)}")


def show_structures(record: Row) -> None:
    """Print every dimension of the record's structures to stdout."""
    for number, row in enumerate(record["structures"]):
        console.show_text(f"{'' if number == 0 else chr(10)}{_structure_line(row)}")
        slots = [
            {
                "tensor": slot["tensor"],
                "dim": slot["dim"],
                "positions": f"{slot['positions']} of {slot['size']}",
                "role": slot["role"],
                "layer": slot["layer"],
            }
            for slot in row["slots"]
        ]
        console.show_table(("tensor", "dim", "positions", "role", "layer"), slots)


def _headline(record: Row) -> str:
    parameters, count = record["parameters"], len(record["structures"])
    line = (
        f"{record['task']}: {parameters['total']:,} parameters; "
        f"{parameters['share_prunable']:.1%} can be pruned, in {count} structures"
    )
    latency = record["latency"]
    if latency is None:
        return line
    share = latency["prunable_ms"] / latency["dense_ms"]
    return (
        f"{line}\ndense {latency['dense_ms']:.3f} ms on {record['device']}, {share:.1%} of it in "
        "layers that some structure makes smaller"
    )


def _columns(record: Row) -> list[str]:
    columns = ["structure", "units", "removable", "made by", "read by", "parameters", "share"]
    if record["latency"] is not None:
        columns += ["ms", "time"]
    if not all(row["offered"] for row in record["structures"]):
        columns.append("offered")
    return columns


def _summary(row: Row) -> dict[str, Any]:
    path = row["name"].rpartition(":")[0]
    found = {
        "structure": row["name"],
        "units": row["units"],
        "removable": row["removable"],
        "made by": short_list(row["produced_by"], path),
        # What experts' logits choose among is nobody's input, and goes all the same.
        "read by": short_list(row["consumed_by"] or row["goes_along"], path),
        "parameters": row["parameters"],
        "share": f"{row['share']:.1%}",
        "offered": row["offered"],
    }
    if "time_ms" in row:
        found |= {"ms": f"{row['time_ms']:.3f}", "time": f"{row['time_share']:.1%}"}
    return found


def _structure_line(row: Row) -> str:
    least = row["least"]
    stay = "at least one stays" if least == 1 else f"at least {least} stay"
    removable = "all of them removable" if row["removable"] else stay
    time = f", {row['time_ms']:.3f} ms ({row['time_share']:.1%})" if "time_ms" in row else ""
    return (
        f"{row['name']}: {row['units']} {row['kind']}, {removable}; "
        f"{row['parameters']:,} parameters ({row['share']:.1%}){time}"
    )


def _show_frozen(groups: Sequence[Row]) -> None:
    console.show_text("\nwhat froze, and why")
    rows = [
        {**group, "at": group["place"], "weights": short_list(group["tensors"])} for group in groups
    ]
    columns = ("operator", "at", "reason", "dimensions", "parameters", "weights")
    console.show_table(columns, rows)


def _show_unprunable(weights: Sequence[Row], total: int) -> None:
    console.show_text("\nweights of which nothing can be pruned")
    rows = [
        {
            "weight": weight["tensor"],
            "parameters": weight["parameters"],
            "share": f"{weight['parameters'] / total:.1%}",
            "why": "; ".join(weight["reasons"]) or "it is not the weight of a layer",
        }
        for weight in weights[:_MOST_LISTED]
    ]
    console.show_table(("weight", "parameters", "share", "why"), rows)
    if len(weights) > _MOST_LISTED:
        console.show_text(f"and {len(weights) - _MOST_LISTED} smaller ones; --json lists them all")


def _kinds_line(rows: Sequence[Row]) -> str:
    count = Counter(row["kind"] for row in rows)
    kinds = ", ".join(f"{kind} ({number})" for kind, number in count.most_common())
    narrow = " or narrows heads (head_width)" if count["heads"] else ""
    return (
        f"search.kinds of a recipe chooses among the kinds of structures: {kinds}; "
        f"structures freezes single ones, forces what they keep{narrow}, by name"
    )

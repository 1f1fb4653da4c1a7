"""The model card beside each artifact: figures, device, versions, and how to run it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from edgeprune.atomic import atomic_write_text
from edgeprune.report.app_program import PROGRAM
from edgeprune.report.record import quality_name, task_name
from edgeprune.report.summary import summary_rows

FILE = "README.md"


def write_card(folder: Path, record: dict[str, Any], result: Mapping[str, Any]) -> Path:
    """Write ``README.md`` for one result of a run.

    Args:
        folder: The artifact's folder.
        record: What ``report.json`` holds.
        result: The entry of its ``results`` whose artifact lies in the folder.
    """
    atomic_write_text(folder / FILE, card_text(record, result))
    return folder / FILE


def card_text(record: dict[str, Any], result: Mapping[str, Any]) -> str:
    """The card in Markdown, with a YAML head as model hubs read it."""
    dense, yours = record["dense"], result
    dense_ms, ms = dense["latency_ms"]["median"], yours["latency_ms"]["median"]
    lines = [
        "---",
        yaml.safe_dump(_head(record), sort_keys=False).strip(),
        "---",
        "",
        f"# {task_name(record)}, pruned to {ms:.3f} ms on {record['device']}",
        "",
        f"Dense {dense_ms:.3f} ms, this model {ms:.3f} ms, measured in turn in the same run: "
        f"{dense_ms / ms:.2f}x. Target {yours['target_ms']:.3f} ms: "
        f"{'met' if yours['met'] else 'missed'}.",
        "",
        *_figures(record, result),
        "",
        "Fidelity is the share of the variance of the dense model's output that this model "
        "reproduces on held-back inputs (R²).",
        "",
        "## Run it",
        "",
        f"`python {PROGRAM}` opens `{Path(str(yours['artifact'])).name}` with the runtime and "
        "numpy alone and prints the median latency.",
        "",
        *_open_sizes(result),
        *_own_module(result),
        "## Measured on",
        "",
        *_machine(record),
        "",
        "A latency holds on this device with these versions only.",
    ]
    return "\n".join(lines) + "\n"


def _head(record: dict[str, Any]) -> dict[str, Any]:
    runtime = record.get("runtime")
    name = runtime.get("name") if isinstance(runtime, Mapping) else runtime
    return {
        "library_name": name,
        "tags": ["edgeprune", "structured-pruning", str(record["device"])],
    }


def _open_sizes(result: Mapping[str, Any]) -> list[str]:
    """The file for other sizes, or why there is none."""
    found = result.get("open_sizes")
    if not found:
        return []
    if "reason" in found:
        return ["## At other sizes", "", f"{found['reason']}.", ""]
    names = ", ".join(dict.fromkeys(f"`{name}`" for named in found["axes"] for name in named))
    return [
        "## At other sizes",
        "",
        f"`{Path(str(found['onnx'])).name}` is the same network in float32 with open sizes "
        f"({names}); what was timed has the deployed ones.",
        "",
    ]


def _own_module(result: Mapping[str, Any]) -> list[str]:
    """How training goes on with the model's own class, or why it cannot."""
    found = result.get("own_module")
    if not found:
        return []
    if "reason" in found:
        return ["## Go on training", "", f"{found['reason']}.", ""]
    return [
        "## Go on training",
        "",
        "In this folder, with the dense model built as it was for the run, in float32:",
        "",
        "```python",
        'model = edgeprune.load_shrunk(build_dense_model(), ".")',
        "```",
        "",
    ]


def _figures(record: dict[str, Any], result: Mapping[str, Any]) -> list[str]:
    only = {**record, "results": [result]}
    columns = ("model", "ms", "95% interval", "p95", "speedup", quality_name(record), "fidelity")
    lines = [_cells([*columns, "MB"]), _cells(["---"] * (len(columns) + 1))]
    for row in summary_rows(only):
        lines.append(_cells([str(row.get(column) or "") for column in (*columns, "MB")]))
    return lines


def _machine(record: dict[str, Any]) -> list[str]:
    lines = [f"- edgeprune {record.get('edgeprune', '?')}"]
    runtime = record.get("runtime")
    if isinstance(runtime, Mapping):
        lines += [f"- {name}: {value}" for name, value in runtime.items()]
    lines.append(f"- threads: {record.get('threads', '?')}")
    fingerprint = record.get("fingerprint")
    machine = fingerprint.get("machine", {}) if isinstance(fingerprint, Mapping) else {}
    lines += [f"- {name}: {value}" for name, value in machine.items() if value is not None]
    if isinstance(fingerprint, Mapping) and "key" in fingerprint:
        lines.append(f"- fingerprint: {fingerprint['key']}")
    return lines


def _cells(values: list[str]) -> str:
    return "| " + " | ".join(values) + " |"

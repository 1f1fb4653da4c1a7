"""Draw run folders as one SVG: a latency bar for each model, with its quality and fidelity.

python tools/draw_report.py RUN_DIR [RUN_DIR ...] --out docs/runs.svg
"""

import argparse
import json
from html import escape
from pathlib import Path
from typing import Any

LEFT, BAR, ROW, RIGHT = 150, 380, 26, 270
COLOURS = {"dense": "#9aa5b1", "dense int8": "#7b8794", "pruned": "#2f7ed8"}


def main() -> None:
    """Read the reports and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    blocks, height = [], 10
    for run in chosen.runs:
        record = json.loads((run / "report.json").read_text(encoding="utf-8"))
        block, used = draw(record, height)
        blocks.append(block)
        height += used
    width = LEFT + BAR + RIGHT
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">'
        f'<rect width="{width}" height="{height}" fill="white"/>{"".join(blocks)}</svg>\n',
        encoding="utf-8",
    )


def draw(record: dict[str, Any], top: int) -> tuple[str, int]:
    """One run from ``top`` down; the drawing and its height."""
    rows = list(bars(record))
    longest = max(row["ms"] for row in rows)
    settings = record["task"]["settings"]
    title = " ".join([record["task"]["name"], *(settings[k] for k in ("net",) if k in settings)])
    parts = [text(10, top + 18, f"{title}, {record['runtime']['name']}, 1 inference", bold=True)]
    for index, row in enumerate(rows):
        y = top + 32 + index * ROW
        length = BAR * row["ms"] / longest
        parts.append(text(10, y + 14, row["name"]))
        parts.append(
            f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{ROW - 8}" rx="2" '
            f'fill="{COLOURS[row["kind"]]}"/>'
        )
        parts.append(text(LEFT + length + 8, y + 14, row["label"]))
    return "".join(parts), 32 + len(rows) * ROW + 16


def bars(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Every model of a run, the dense ones first."""
    quality = record["task"]["quality_name"]
    rows = []
    for key, name in (("dense", "dense"), ("dense_int8", "dense int8")):
        if record.get(key):
            ms = record[key]["latency_ms"]["median"]
            label = f"{ms:.2f} ms, {quality} {record[key]['quality']:.3f}"
            rows.append({"name": name, "kind": name, "ms": ms, "label": label})
    for result in record["results"]:
        ms = result["latency_ms"]["median"]
        state = "met" if result["met"] else "missed"
        label = f"{ms:.2f} ms, {quality} {result['quality']:.3f}, R² {result['fidelity']:.3f}"
        name = f"{result['goal']} {state}"
        rows.append({"name": name, "kind": "pruned", "ms": ms, "label": label})
    return rows


def text(x: float, y: float, content: str, bold: bool = False) -> str:
    """A line of text."""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{weight} fill="#1f2933">{escape(content)}</text>'


if __name__ == "__main__":
    main()

"""The list of structures below a picture."""

import math
from collections.abc import Mapping
from typing import Any

from edgeprune.report.picture import svg
from edgeprune.report.picture.colours import colour, text_colour

_ROW, _SIZE = 18.0, 10.0
_CHIP = (26.0, 13.0)
_GAP = 20.0


def structure_line(row: Mapping[str, Any]) -> str:
    """A structure in one line: name, units, share of the parameters, and of the time."""
    parts = [f"{row['units']} units", f"{row['share']:.1%} of parameters"]
    if row["removable"]:
        parts.insert(1, "all removable")
    if "time_share" in row:
        parts.append(f"{row['time_share']:.1%} of time")
    return f"{row['name']} ({', '.join(parts)})"


def draw_legend(
    record: Mapping[str, Any], numbers: Mapping[str, int], x: float, y: float, width: float
) -> tuple[str, float]:
    """All structures with their colours, in as many columns as there is room for.

    Returns:
        The drawing, and the height at which it ends.
    """
    rows = [(numbers[row["name"]], structure_line(row)) for row in record["structures"]]
    if not rows:
        return svg.text(x, y, "nothing of this network can be pruned", _SIZE, bold=True), y
    longest = max(svg.text_width(line, _SIZE) for _, line in rows) + _CHIP[0] + _GAP
    columns = max(1, int(width / longest))
    per_column = math.ceil(len(rows) / columns)
    pieces = []
    for index, (number, line) in enumerate(rows):
        left, top = x + index // per_column * longest, y + index % per_column * _ROW
        pieces.append(
            svg.group(
                [
                    svg.rect(left, top, *_CHIP, colour(number), radius=2, marks=f"h{number}"),
                    svg.text(
                        left + _CHIP[0] / 2,
                        top + 10,
                        str(number),
                        9,
                        fill=text_colour(number),
                        anchor="middle",
                    ),
                    svg.text(left + _CHIP[0] + 6, top + 10.5, line, _SIZE),
                ],
                [line],
                f"entry s{number}",
            )
        )
    return "".join(pieces), y + per_column * _ROW

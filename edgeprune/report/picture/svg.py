"""Pieces of SVG as text."""

from collections.abc import Sequence
from html import escape
from itertools import pairwise

INK = "#1f2933"
FAINT = "#616e7c"
# Of a letter in a common sans-serif font, in ems.
_LETTER = 0.65

Point = tuple[float, float]


def text_width(content: str, size: float) -> float:
    """About how wide a text is in pixels."""
    return _LETTER * size * len(content)


def fitting(name: str, room: float, size: float) -> str:
    """The end of a dotted name that there is room for, in whole parts unless that says little."""
    if text_width(name, size) <= room:
        return name
    letters = max(2, int(room / text_width("x", size))) - 1
    end = name[-letters:]
    whole = end.partition(".")[2] if "." in end else ""
    if "." not in name:
        return f"{name[:letters]}…"
    return f"…{whole if len(whole) > letters / 2 else end}"


def text(
    x: float,
    y: float,
    content: str,
    size: float,
    *,
    fill: str = INK,
    bold: bool = False,
    anchor: str = "start",
) -> str:
    """A line of text that stands on ``y``."""
    weight = ' font-weight="bold"' if bold else ""
    where = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{fill}"{weight}{where}>'
        f"{escape(content)}</text>"
    )


def rect(
    x: float,
    y: float,
    width: float,
    height: float,
    fill: str,
    *,
    stroke: str = "",
    radius: float = 0.0,
    marks: str = "",
) -> str:
    """A rectangle; ``marks`` are its classes."""
    more = f' stroke="{stroke}"' if stroke else ""
    more += f' rx="{radius:g}"' if radius else ""
    more += f' class="{marks}"' if marks else ""
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{fill}"{more}/>'


def group(content: Sequence[str], title: Sequence[str], marks: str) -> str:
    """Pieces that belong together, with lines that a reader sees on hovering."""
    return f'<g class="{marks}"><title>{escape(chr(10).join(title))}</title>{"".join(content)}</g>'


def curve(points: Sequence[Point], colour: str, marks: str) -> str:
    """A line through points that leaves and enters each of them horizontally."""
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (a, b), (c, d) in pairwise(points):
        half = (a + c) / 2
        same = abs(b - d) < 0.05
        path.append(
            f"H{c:.1f}" if same else f"C{half:.1f} {b:.1f} {half:.1f} {d:.1f} {c:.1f} {d:.1f}"
        )
    return _path("".join(path), colour, marks)


def polyline(points: Sequence[Point], colour: str, marks: str) -> str:
    """A line through points with straight pieces."""
    return _path("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), colour, marks)


def arrow_head(point: Point, colour: str) -> str:
    """A small triangle that points right to ``point``."""
    x, y = point
    return f'<path d="M{x:.1f} {y:.1f}l-6 -3.5v7z" fill="{colour}"/>'


def _path(path: str, colour: str, marks: str) -> str:
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2" '
        f'stroke-linejoin="round" class="{marks}"/>'
    )

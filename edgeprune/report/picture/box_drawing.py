"""One box as SVG: what it is, its sizes, and the structures on both of its sides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeprune.report.picture import svg
from edgeprune.report.picture.boxes import Box
from edgeprune.report.picture.colours import NEUTRAL, colour, text_colour
from edgeprune.report.picture.layering import Rect

BAND = 17.0
_LAYER_WIDTH, _LAYER_HEIGHT, _OTHER_HEIGHT = 148.0, 36.0, 32.0
_LEAST_WIDTH = 46.0
_NAME, _DETAIL, _NUMBER = 10.0, 9.0, 9.0
_FROZEN, _EDGE, _OBSTACLE = "#dde2e8", "#7b8794", "#c62828"
# Structures of one side whose numbers are readable, and that a title lists.
_MOST_NUMBERS, _MOST_LISTED = 3, 8


@dataclass(frozen=True)
class Scheme:
    """What a box's drawing refers to.

    Attributes:
        numbers: By structure its number, which is its colour.
        facts: By structure a line for titles.
        largest: Most parameters of one box.
        total: All parameters.
    """

    numbers: Mapping[str, int]
    facts: Mapping[str, str]
    largest: int
    total: int

    def marks(self, names: Sequence[str]) -> str:
        """Classes of what belongs to structures."""
        return " ".join(f"s{self.numbers[name]}" for name in names)

    def line_colour(self, names: Sequence[str]) -> str:
        """The colour of a line that carries structures."""
        return colour(self.numbers[names[0]]) if names else NEUTRAL


def box_size(box: Box) -> tuple[float, float]:
    """Width and height of a box."""
    if box.kind == "layer":
        return _LAYER_WIDTH, _LAYER_HEIGHT
    bands = 2 * BAND if box.kind == "operator" else 8.0
    longest = max(
        svg.text_width(_first_line(box, ""), _NAME), svg.text_width(_second_line(box), _DETAIL)
    )
    return max(_LEAST_WIDTH, longest + bands + 8.0), _OTHER_HEIGHT


def draw_box(box: Box, place: Rect, block: str, scheme: Scheme) -> str:
    """A box at its place; ``block`` is the module path that its frame says already."""
    ends = box.kind in ("input", "output")
    fill = _FROZEN if box.frozen else "#eef1f4" if ends else "#ffffff"
    middle = place.x + place.width / 2
    pieces = [
        svg.rect(
            *(place.x, place.y, place.width, place.height),
            fill,
            stroke=_OBSTACLE if box.kind == "operator" and box.reasons else _EDGE,
            radius=place.height / 2 if ends else 3.0,
        )
    ]
    pieces += _band(box, box.consumed, place, place.x, scheme)
    pieces += _band(box, box.produced, place, place.x + place.width - BAND, scheme)
    room = place.width - 2 * BAND - 4 if not ends else place.width
    name = svg.fitting(_first_line(box, block), room, _NAME)
    below = _second_line(box)
    y = place.y + (14 if below else 20)
    pieces.append(svg.text(middle, y, name, _NAME, bold=True, anchor="middle"))
    if below:
        y = place.y + 26
        pieces.append(svg.text(middle, y, below, _DETAIL, fill=svg.FAINT, anchor="middle"))
    if box.kind == "layer" and scheme.largest:
        inner = place.width - 2 * BAND - 8
        share = inner * box.parameters / scheme.largest
        x, y = place.x + BAND + 4, place.y + place.height - 6
        pieces.append(svg.rect(x, y, inner, 3, "#e4e7eb"))
        pieces.append(svg.rect(x, y, max(share, 0.5), 3, "#52606d"))
    return svg.group(pieces, _title(box, scheme), f"box {scheme.marks(box.structures)}".strip())


def _first_line(box: Box, block: str) -> str:
    if box.kind == "layer":
        return box.path.removeprefix(f"{block}.") if block else box.path
    return " + ".join(box.operators)


def _second_line(box: Box) -> str:
    """Sizes, and what is drawn into a layer."""
    more = box.operators[1:] if box.kind == "layer" else ()
    return ", ".join((box.detail, *more))


def _band(box: Box, names: Sequence[str], place: Rect, x: float, scheme: Scheme) -> list[str]:
    """The structures of one side, each with its number where there are few."""
    if box.kind in ("input", "output"):
        return []
    if not names:
        return [] if box.kind == "operator" else [_plain_band(place, x)]
    height = place.height / len(names)
    pieces = []
    for index, name in enumerate(names):
        number, y = scheme.numbers[name], place.y + index * height
        pieces.append(svg.rect(x, y, BAND, height, colour(number), marks=f"h{number}"))
        if len(names) <= _MOST_NUMBERS:
            pieces.append(
                svg.text(
                    x + BAND / 2,
                    y + height / 2 + 3,
                    str(number),
                    _NUMBER,
                    fill=text_colour(number),
                    anchor="middle",
                )
            )
    return pieces


def _plain_band(place: Rect, x: float) -> str:
    return svg.rect(x, place.y, BAND, place.height, NEUTRAL)


def _title(box: Box, scheme: Scheme) -> list[str]:
    lines = [f"{box.path or box.name}: {', '.join(box.operators)} {box.detail}".rstrip()]
    if box.parameters:
        share = box.parameters / scheme.total
        lines.append(f"{box.parameters:,} parameters ({share:.1%} of all)")
    for side, names in (("reads", box.consumed), ("makes", box.produced)):
        listed = [f"{side} {scheme.facts[name]}" for name in names[:_MOST_LISTED]]
        rest = len(names) - len(listed)
        lines += [*listed, *([f"{side} {rest} more"] if rest else [])]
    if box.frozen:
        lines.append("nothing of it can be pruned")
    return [*lines, *box.reasons]

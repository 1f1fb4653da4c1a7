"""One block as SVG: its boxes and the lines between them, and where lines enter and leave it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeprune.report.picture import svg
from edgeprune.report.picture.blocks import Block
from edgeprune.report.picture.box_drawing import Scheme, box_size, draw_box
from edgeprune.report.picture.boxes import Box, Edge
from edgeprune.report.picture.layering import Layout, Point, Rect, lay_out

SIDE = 10.0
_TOP, _BOTTOM = 20.0, 10.0
_TITLE_SIZE = 10.0
_DOT = (0.0, 4.0)
_CHIP_WIDTH, _CHIP_HEIGHT, _CHIP_SIZE = 150.0, 14.0, 9.0
_FRAME, _FRAME_EDGE, _CHIP = "#f5f7fa", "#cbd2d9", "#e4e7eb"


@dataclass(frozen=True)
class LaidOut:
    """A block with places for everything in it.

    Attributes:
        block: What is drawn.
        layout: Boxes, and under ``from NAME`` and ``to NAME`` the ends of lines to other blocks.
        far: Boxes of blocks further away that it reads, with a text that names them.
    """

    block: Block
    layout: Layout
    far: Mapping[str, str]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height with the frame."""
        inside = max(self.layout.width, svg.text_width(self.block.title, _TITLE_SIZE))
        return inside + 2 * SIDE, self.layout.height + self._top + _BOTTOM

    @property
    def _top(self) -> float:
        return _TOP if self.block.path else _BOTTOM

    def place(self, name: str, x: float, y: float) -> Rect:
        """Where a box or an end of a line lies when the block is at a point."""
        return self.layout.places[name].moved(x + SIDE, y + self._top)

    def moved(self, points: Sequence[Point], x: float, y: float) -> list[Point]:
        """Points of the layout when the block is at a point."""
        return [(px + x + SIDE, py + y + self._top) for px, py in points]


def lay_out_block(
    block: Block,
    boxes: Mapping[str, Box],
    edges: Sequence[Edge],
    before: Block | None,
    after: Block | None,
) -> LaidOut:
    """Place the boxes of a block; lines to its neighbours end at its sides.

    Args:
        block: What to place.
        boxes: All boxes by name.
        edges: All lines.
        before: The block in front of it, to which lines are drawn; far ones are named instead.
        after: The block behind it.
    """
    inside, near = set(block.boxes), set(before.boxes) if before else set()
    entering = dict.fromkeys(a for a, b in edges if b in inside and a not in inside)
    far = {a: f"from {_short(boxes[a])}" for a in entering if a not in near}
    behind = set(after.boxes) if after else set()
    leaving = dict.fromkeys(a for a, b in edges if a in inside and b in behind)
    sizes: dict[str, tuple[float, float]] = {}
    for name in entering:
        width = svg.text_width(far[name], _CHIP_SIZE) + 8 if name in far else 0.0
        sizes[f"from {name}"] = (width, _CHIP_HEIGHT) if name in far else _DOT
    sizes.update((name, box_size(boxes[name])) for name in block.boxes)
    sizes.update((f"to {name}", _DOT) for name in leaving)
    drawn = [(a if a in inside else f"from {a}", b) for a, b in edges if b in inside]
    drawn += [(name, f"to {name}") for name in leaving]
    first = [f"from {name}" for name in entering if name not in far]
    return LaidOut(block, lay_out(sizes, drawn, first, [f"to {name}" for name in leaving]), far)


def draw_block(
    laid_out: LaidOut, x: float, y: float, boxes: Mapping[str, Box], scheme: Scheme
) -> str:
    """The frame, the lines and the boxes of a block whose corner is at a point."""
    block, pieces = laid_out.block, []
    if block.path:
        width, height = laid_out.size
        pieces.append(svg.rect(x, y, width, height, _FRAME, stroke=_FRAME_EDGE, radius=6))
        pieces.append(
            svg.text(x + SIDE, y + 14, block.title, _TITLE_SIZE, fill=svg.FAINT, bold=True)
        )
    for (a, b), points in laid_out.layout.routes.items():
        produced = boxes[a.removeprefix("from ")].produced
        moved = laid_out.moved(points, x, y)
        stroke = scheme.line_colour(produced)
        pieces.append(svg.curve(moved, stroke, f"line {scheme.marks(produced)}".strip()))
        if not b.startswith("to "):
            pieces.append(svg.arrow_head(moved[-1], stroke))
    for name, words in laid_out.far.items():
        pieces.append(_chip(laid_out.place(f"from {name}", x, y), words))
    for name in block.boxes:
        pieces.append(draw_box(boxes[name], laid_out.place(name, x, y), block.path, scheme))
    return "".join(pieces)


def _chip(place: Rect, words: str) -> str:
    frame = svg.rect(place.x, place.y, place.width, place.height, _CHIP, radius=7)
    middle = place.x + place.width / 2
    return frame + svg.text(
        middle, place.y + 10, words, _CHIP_SIZE, fill=svg.FAINT, anchor="middle"
    )


def _short(box: Box) -> str:
    """A box's name in a few letters."""
    path = svg.fitting(box.path, _CHIP_WIDTH, _CHIP_SIZE)
    return path if box.kind == "layer" else " ".join(filter(None, (path, box.operators[0])))

"""A network as a picture: boxes in blocks, coloured by structure, with a legend."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from edgeprune.graph.network import Network
from edgeprune.report.picture import svg
from edgeprune.report.picture.block_drawing import SIDE, LaidOut, draw_block, lay_out_block
from edgeprune.report.picture.blocks import Block, make_blocks
from edgeprune.report.picture.box_drawing import Scheme
from edgeprune.report.picture.boxes import Box, Diagram
from edgeprune.report.picture.contraction import make_diagram
from edgeprune.report.picture.legend import draw_legend, structure_line
from edgeprune.report.picture.wrapping import Lines, wrap

_MARGIN, _HEAD = 24.0, 78.0
_KEY = (
    "Left band: the structure a layer reads; right band: the one it makes. Numbers are structures.",
    "Grey: cannot be pruned; red frame: the operator that says so. Bar: share of parameters.",
)
_GAP_X, _GAP_Y = 26.0, 30.0
# How far the lines that return to the left lie apart, and outside of the blocks.
_OUTSIDE, _APART, _MOST_APART = 12.0, 4.0, 2
_LEAST_WIDTH = 760.0


def draw_network(network: Network, record: Mapping[str, Any]) -> str:
    """The picture as SVG that needs nothing else.

    Args:
        network: The analysed network.
        record: What :mod:`edgeprune.stages.inspection_record` says of it, all structures.
    """
    diagram = make_diagram(network)
    scheme = _scheme(diagram, record)
    boxes = {box.name: box for box in diagram.boxes}
    blocks = make_blocks(diagram.boxes, diagram.edges)
    laid_out = [
        lay_out_block(block, boxes, diagram.edges, before, after)
        for before, block, after in zip([None, *blocks], blocks, [*blocks[1:], None])
    ]
    lines = wrap([one.size for one in laid_out], _breaks(blocks), _GAP_X, _GAP_Y)
    x, y = _MARGIN, _HEAD
    pieces = [
        draw_block(one, x + place.x, y + place.y, boxes, scheme)
        for one, place in zip(laid_out, lines.blocks)
    ]
    pieces += _connections(laid_out, lines, boxes, scheme, x, y)
    width = max(lines.width, _LEAST_WIDTH)
    rows, used = draw_legend(record, scheme.numbers, x, y + lines.height + 28, width)
    return _page(record, "".join(pieces) + rows, width + 2 * _MARGIN, used + _MARGIN)


def _scheme(diagram: Diagram, record: Mapping[str, Any]) -> Scheme:
    rows = record["structures"]
    return Scheme(
        {row["name"]: number for number, row in enumerate(rows, 1)},
        {row["name"]: structure_line(row) for row in rows},
        max((box.parameters for box in diagram.boxes), default=0),
        record["parameters"]["total"],
    )


def _breaks(blocks: Sequence[Block]) -> list[bool]:
    """Whether a block begins a line: where one stage of repeated modules ends."""
    stages = [block.path.rpartition(".")[0] for block in blocks]
    repeated = {stage for stage, after in pairwise(stages) if stage == after and stage}
    changes = [a != b and bool({a, b} & repeated) for a, b in pairwise(stages)]
    return [False, *changes][: len(blocks)]


def _connections(
    laid_out: Sequence[LaidOut],
    lines: Lines,
    boxes: Mapping[str, Box],
    scheme: Scheme,
    x: float,
    y: float,
) -> list[str]:
    """Lines from each block to the next, which may stand in the next line."""
    pieces = []
    both = list(zip(laid_out, lines.blocks))
    for (one, here), (other, there) in pairwise(both):
        shared = [name for name in one.block.boxes if f"to {name}" in one.layout.places]
        for number, name in enumerate(shared):
            start = one.place(f"to {name}", x + here.x, y + here.y)
            end = other.place(f"from {name}", x + there.x, y + there.y)
            a, b = (start.x, start.middle), (end.x, end.middle)
            marks = f"line {scheme.marks(boxes[name].produced)}".strip()
            stroke = scheme.line_colour(boxes[name].produced)
            if here.line == there.line:
                pieces.append(svg.curve([a, b], stroke, marks))
                continue
            aside = _OUTSIDE + min(number, _MOST_APART) * _APART
            right = x + here.x + one.size[0] + aside
            left, gap = x - aside, y + lines.bottoms[here.line] + aside
            back = [a, (right, a[1]), (right, gap), (left, gap), (left, b[1]), b]
            pieces.append(svg.polyline(back, stroke, marks))
    return pieces


def _page(record: Mapping[str, Any], content: str, width: float, height: float) -> str:
    parameters = record["parameters"]
    title = f"{record['task']}: what can be pruned"
    count = len(record["structures"])
    words = (
        f"{parameters['total']:,} parameters, {parameters['share_prunable']:.1%} of them in "
        f"{count} structure{'' if count == 1 else 's'}"
    )
    if record["latency"]:
        words += f"; dense {record['latency']['dense_ms']:.3f} ms on {record['device']}"
    key = [
        svg.text(_MARGIN - SIDE, 54 + 13 * number, line, 10, fill=svg.FAINT)
        for number, line in enumerate(_KEY)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" role="img">'
        f"<title>{escape(title)}</title><desc>{escape(words)}</desc>"
        f"{svg.rect(0, 0, width, height, '#ffffff')}"
        f"{svg.text(_MARGIN - SIDE, 24, title, 15, bold=True)}"
        f"{svg.text(_MARGIN - SIDE, 40, words, 11)}"
        f"{''.join(key)}{content}</svg>\n"
    )

"""Blocks in lines, one after another, like the words of a text."""

from collections.abc import Sequence
from dataclasses import dataclass

# Width to height that a picture should have.
_ASPECT = 1.5
_WIDTHS = 12
_WIDEST = 2400.0


@dataclass(frozen=True)
class Placed:
    """Where a block lies: its top left corner, and the line it is in."""

    x: float
    y: float
    line: int


@dataclass(frozen=True)
class Lines:
    """All blocks with their places, and per line the top, the bottom and the right end."""

    blocks: list[Placed]
    tops: list[float]
    bottoms: list[float]
    ends: list[float]

    @property
    def width(self) -> float:
        """Of the longest line."""
        return max(self.ends, default=0.0)

    @property
    def height(self) -> float:
        """Of all lines."""
        return self.bottoms[-1] if self.bottoms else 0.0


def wrap(
    sizes: Sequence[tuple[float, float]], breaks: Sequence[bool], gap_x: float, gap_y: float
) -> Lines:
    """Put blocks into lines so that the whole is about half as wide again as it is high.

    Args:
        sizes: Width and height of each block.
        breaks: Whether a block should begin a line.
        gap_x: Between blocks of a line.
        gap_y: Between lines.
    """
    widest = max((width for width, _ in sizes), default=0.0)
    longest = max(widest, min(_WIDEST, sum(width + gap_x for width, _ in sizes)))
    step = (longest - widest) / _WIDTHS
    tried = [_wrapped(sizes, breaks, gap_x, gap_y, widest + step * i) for i in range(_WIDTHS + 1)]
    return min(tried, key=lambda lines: abs(lines.width - _ASPECT * lines.height))


def _wrapped(
    sizes: Sequence[tuple[float, float]],
    breaks: Sequence[bool],
    gap_x: float,
    gap_y: float,
    most: float,
) -> Lines:
    lines: list[list[int]] = []
    end = 0.0
    for index, (width, _) in enumerate(sizes):
        if not lines or breaks[index] or end + gap_x + width > most + 1e-6:
            lines.append([])
            end = -gap_x
        lines[-1].append(index)
        end += gap_x + width
    found = Lines([], [], [], [])
    y = 0.0
    for number, line in enumerate(lines):
        height = max(sizes[index][1] for index in line)
        x = 0.0
        for index in line:
            width, own = sizes[index]
            found.blocks.append(Placed(x, y + (height - own) / 2, number))
            x += width + gap_x
        found.tops.append(y)
        found.bottoms.append(y + height)
        found.ends.append(x - gap_x)
        y += height + gap_y
    return found

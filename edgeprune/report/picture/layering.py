"""Layered layout of a small acyclic graph from left to right (Sugiyama, Tagawa and Toda 1981).

Nodes get a column each, lines that pass a column get a place in it, the order within columns
is improved by barycentres, and heights are fitted by isotonic regression.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Point = tuple[float, float]
Edge = tuple[str, str]
# A node, or an edge's place in a column that it passes.
_Item = str | tuple[str, str, int]

GAP_X, GAP_Y = 26.0, 10.0
_PASSING_HEIGHT = 4.0
_SWEEPS = 6
# Lines that pass columns shall be straight before anything else is.
_STRAIGHT, _HALF_STRAIGHT = 8.0, 2.0


@dataclass(frozen=True)
class Rect:
    """A place: left, top, width and height."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """The height of its horizontal axis."""
        return self.y + self.height / 2

    def moved(self, x: float, y: float) -> "Rect":
        """The same further right and down."""
        return Rect(self.x + x, self.y + y, self.width, self.height)


@dataclass(frozen=True)
class Layout:
    """Where nodes lie, the points of each edge, and the size of it all."""

    places: dict[str, Rect]
    routes: dict[Edge, list[Point]]
    width: float
    height: float


def lay_out(
    sizes: Mapping[str, tuple[float, float]],
    edges: Sequence[Edge],
    first: Iterable[str] = (),
    last: Iterable[str] = (),
) -> Layout:
    """Lay out a graph.

    Args:
        sizes: Width and height of every node, in topological order.
        edges: Between these nodes.
        first: Nodes without predecessors that stand in the leftmost column.
        last: Nodes without successors that stand in the rightmost column.
    """
    column_of = _columns(list(sizes), edges, set(first), set(last))
    columns, links = _with_passing(column_of, edges)
    _order(columns, links)
    heights = {item: sizes[item][1] if isinstance(item, str) else _PASSING_HEIGHT
               for column in columns for item in column}  # fmt: skip
    middles = _middles(columns, links, heights)
    top = min((middles[i] - heights[i] / 2 for i in middles), default=0.0)
    bottom = max((middles[i] + heights[i] / 2 for i in middles), default=0.0)
    lefts, widths = _across(columns, sizes)
    places = {
        name: Rect(
            lefts[column_of[name]] + (widths[column_of[name]] - width) / 2,
            middles[name] - height / 2 - top,
            width,
            height,
        )
        for name, (width, height) in sizes.items()
    }
    routes = {}
    for a, b in edges:
        points = [(places[a].x + places[a].width, places[a].middle)]
        for column in range(column_of[a] + 1, column_of[b]):
            y = middles[a, b, column] - top
            points += [(lefts[column], y), (lefts[column] + widths[column], y)]
        routes[a, b] = [*points, (places[b].x, places[b].middle)]
    return Layout(places, routes, lefts[-1] + widths[-1] if lefts else 0.0, bottom - top)


def _columns(
    names: Sequence[str], edges: Sequence[Edge], first: set[str], last: set[str]
) -> dict[str, int]:
    """The column of every node: behind all that it reads, and what reads nothing as late as can."""
    before, after = defaultdict(list), defaultdict(list)
    for a, b in edges:
        before[b].append(a)
        after[a].append(b)
    column: dict[str, int] = {}
    least = 1 if first else 0
    for name in names:
        start = 0 if name in first else least
        column[name] = max([start, *(column[a] + 1 for a in before[name])])
    for name in names:
        if not before[name] and after[name] and name not in first:
            column[name] = max(least, min(column[b] for b in after[name]) - 1)
    end = max(column.values(), default=0)
    for name in last:
        column[name] = max(end, *(column[a] + 1 for a in before[name]))
    return column


def _with_passing(
    column_of: Mapping[str, int], edges: Sequence[Edge]
) -> tuple[list[list[_Item]], list[tuple[_Item, _Item]]]:
    """Nodes and passing lines by column, and links between neighbouring columns."""
    columns: list[list[_Item]] = [[] for _ in range(max(column_of.values(), default=-1) + 1)]
    for name, column in column_of.items():
        columns[column].append(name)
    links: list[tuple[_Item, _Item]] = []
    for a, b in edges:
        passing: list[_Item] = []
        for column in range(column_of[a] + 1, column_of[b]):
            passing.append((a, b, column))
            columns[column].append(passing[-1])
        links.extend(pairwise([a, *passing, b]))
    return columns, links


def _order(columns: list[list[_Item]], links: Sequence[tuple[_Item, _Item]]) -> None:
    """Sort every column, in place, so that few links cross."""
    before, after = _neighbours(links)
    best, fewest = [list(column) for column in columns], _crossings(columns, links)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        near = before if forward else after
        for column in columns if forward else reversed(columns):
            place = {item: i for one in columns for i, item in enumerate(one)}
            centre = {
                item: sum(place[n] for n in near[item]) / len(near[item])
                if near[item]
                else float(place[item])
                for item in column
            }
            column.sort(key=centre.__getitem__)
        crossings = _crossings(columns, links)
        if crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
    columns[:] = best


def _neighbours(
    links: Sequence[tuple[_Item, _Item]],
) -> tuple[dict[_Item, list[_Item]], dict[_Item, list[_Item]]]:
    before: dict[_Item, list[_Item]] = defaultdict(list)
    after: dict[_Item, list[_Item]] = defaultdict(list)
    for a, b in links:
        after[a].append(b)
        before[b].append(a)
    return before, after


def _crossings(columns: Sequence[Sequence[_Item]], links: Sequence[tuple[_Item, _Item]]) -> int:
    place = {item: (c, i) for c, column in enumerate(columns) for i, item in enumerate(column)}
    spans = [(*place[a], place[b][1]) for a, b in links]
    return sum(
        c == d and (i - k) * (j - m) < 0
        for n, (c, i, j) in enumerate(spans)
        for d, k, m in spans[:n]
    )


def _middles(
    columns: Sequence[Sequence[_Item]],
    links: Sequence[tuple[_Item, _Item]],
    heights: Mapping[_Item, float],
) -> dict[_Item, float]:
    """Heights of the nodes' axes: near those of their neighbours, in order and apart."""
    middles: dict[_Item, float] = {}
    offsets = [_offsets(column, heights) for column in columns]
    for column, offset in zip(columns, offsets):
        shift = (offset[-1] if offset else 0.0) / 2
        middles.update((item, y - shift) for item, y in zip(column, offset))
    before, after = _neighbours(links)
    for sweep in range(_SWEEPS):
        order = list(zip(columns, offsets))
        for column, offset in order if sweep % 2 == 0 else reversed(order):
            wanted, weights = [], []
            for item in column:
                near = [(n, _weight(item, n)) for n in (*before[item], *after[item])]
                weight = sum(w for _, w in near)
                mean = sum(w * middles[n] for n, w in near) / weight if near else middles[item]
                wanted.append(mean)
                weights.append(weight or 1.0)
            free = _ascending([y - o for y, o in zip(wanted, offset)], weights)
            middles.update((item, y + o) for item, y, o in zip(column, free, offset))
    return middles


def _offsets(column: Sequence[_Item], heights: Mapping[_Item, float]) -> list[float]:
    """Distances of the items' axes from the first one's, packed closely."""
    offsets = [0.0] if column else []
    for a, b in pairwise(column):
        offsets.append(offsets[-1] + (heights[a] + heights[b]) / 2 + GAP_Y)
    return offsets


def _weight(a: _Item, b: _Item) -> float:
    passing = (not isinstance(a, str)) + (not isinstance(b, str))
    return (1.0, _HALF_STRAIGHT, _STRAIGHT)[passing]


def _ascending(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The closest ascending values, by weighted squares: pool adjacent violators."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (v, w, n), (u, x, m) = pools.pop(), pools.pop()
            pools.append(((u * x + v * w) / (x + w), x + w, m + n))
    return [value for value, _, count in pools for _ in range(count)]


def _across(
    columns: Sequence[Sequence[_Item]], sizes: Mapping[str, tuple[float, float]]
) -> tuple[list[float], list[float]]:
    """Left edge and width of every column."""
    lefts, widths, x = [], [], 0.0
    for column in columns:
        width = max((sizes[item][0] for item in column if isinstance(item, str)), default=0.0)
        lefts.append(x)
        widths.append(width)
        x += width + GAP_X
    return lefts, widths

"""Writing any function of several levels as a sum over single structures and pairs of them.

A search adds up unary and pairwise terms. A layer whose size is the sum of three structures has a
time that is neither; its least-squares projection on such sums (the functional analysis of
variance up to second order; Hooker 2007) is what the search gets.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt

_MOST_POINTS = 4000
_MOST_COLUMNS = 800
# Only keeps the many equal solutions from drifting apart.
_RIDGE = 1e-6
# How fast the weight of a structure that is seldom cut far falls with what it loses.
_SLOPE = 3.0

# Weight of a level that a plan does not have, against the one it has.
_ELSEWHERE = 0.1

Grid = npt.NDArray[np.int64]
Function = Callable[[Grid], npt.NDArray[np.float64]]


@dataclass
class Terms:
    """A constant, unary terms by structure and level, pair terms by two structures and levels."""

    constant: float = 0.0
    unary: dict[str, dict[int, float]] = field(default_factory=dict)
    pairs: dict[tuple[str, str], dict[tuple[int, int], float]] = field(default_factory=dict)
    error: float = field(default=0.0, compare=False)

    def at(self, levels: Mapping[str, int]) -> float:
        """The sum at ``levels``; KeyError of a level without a term."""
        single = sum(times[levels[name]] for name, times in self.unary.items())
        double = sum(cells[levels[a], levels[b]] for (a, b), cells in self.pairs.items())
        return self.constant + single + double

    def copy(self) -> "Terms":
        """The same terms, to add to."""
        unary = {name: dict(times) for name, times in self.unary.items()}
        pairs = {names: dict(cells) for names, cells in self.pairs.items()}
        return Terms(self.constant, unary, pairs, self.error)

    def named(self, names: Sequence[str]) -> "Terms":
        """The terms of names ``"0"``, ``"1"``... as those of ``names``."""
        unary = {names[int(place)]: times for place, times in self.unary.items()}
        pairs = {(names[int(i)], names[int(j)]): cells for (i, j), cells in self.pairs.items()}
        return Terms(self.constant, unary, pairs, self.error)

    def add(self, other: "Terms", factor: float = 1.0) -> None:
        """Add another's terms; a pair goes where it is, whichever of its two names comes first."""
        self.constant += factor * other.constant
        # Errors of parts alike point the same way.
        self.error += factor * other.error
        for name, times in other.unary.items():
            mine = self.unary.setdefault(name, dict.fromkeys(times, 0.0))
            for level, ms in times.items():
                mine[level] = mine.get(level, 0.0) + factor * ms
        for (first, second), cells in other.pairs.items():
            if (second, first) in self.pairs:
                first, second = second, first
                cells = {(j, i): ms for (i, j), ms in cells.items()}
            pair = self.pairs.setdefault((first, second), dict.fromkeys(cells, 0.0))
            for cell, ms in cells.items():
                pair[cell] = pair.get(cell, 0.0) + factor * ms


def project(
    function: Function,
    offered: Mapping[str, tuple[int, ...]],
    near_full: Collection[str] = (),
    named: Collection[str] = (),
    around: Mapping[str, int] | None = None,
    weight: Function | None = None,
) -> Terms:
    """``function`` of the levels of the structures in ``offered`` as a sum of terms.

    Exact for up to two structures; ``error`` is the root mean square of what more leave over.

    Args:
        function: Takes levels of shape (points, structures), gives (points,).
        offered: Levels of each structure, in the function's order.
        near_full: Structures whose higher levels matter more, because plans seldom cut them far.
        named: Those whose levels are names of something and not sizes.
        around: Levels that matter most, the more of them at once the more.
        weight: How much each point matters besides.
    """
    names = tuple(offered)
    if len(names) <= 2:
        return _exact(function, offered)
    points = _points(offered)
    if around is not None:
        points = np.vstack([points, _points_around(offered, around)])
    values = function(points)
    columns, keys = _columns(points, offered, named)
    trust = _trust(points, [name in near_full for name in names])
    if weight is not None:
        trust *= weight(points)
    if around is not None:
        at = np.array([around[name] for name in names])
        trust *= _ELSEWHERE ** (points != at).sum(axis=1)
    ridge = _RIDGE * trust.sum() * np.eye(columns.shape[1])
    weighted = columns * trust[:, None]
    factors = np.linalg.solve(weighted.T @ columns + ridge, weighted.T @ values)
    square = (columns @ factors - values) ** 2
    terms = Terms(error=float(np.sqrt(np.average(square, weights=trust))))
    for name in names:
        terms.unary[name] = dict.fromkeys(offered[name], 0.0)
    for first, second in combinations(names, 2):
        terms.pairs[first, second] = dict.fromkeys(product(offered[first], offered[second]), 0.0)
    for key, factor in zip(keys, factors, strict=True):
        _put(terms, key, float(factor))
    return terms


def _exact(function: Function, offered: Mapping[str, tuple[int, ...]]) -> Terms:
    names = tuple(offered)
    grid = np.array(list(product(*offered.values())), np.int64)
    values = [float(value) for value in function(grid)]
    if not names:
        return Terms(constant=values[0])
    if len(names) == 1:
        return Terms(unary={names[0]: dict(zip(offered[names[0]], values, strict=True))})
    cells = {(int(i), int(j)): value for (i, j), value in zip(grid, values, strict=True)}
    return Terms(pairs={(names[0], names[1]): cells})


def _points(offered: Mapping[str, tuple[int, ...]]) -> Grid:
    """All combinations of levels, or many random ones."""
    if np.prod([float(len(levels)) for levels in offered.values()]) <= _MOST_POINTS:
        return np.array(list(product(*offered.values())), np.int64)
    random = np.random.default_rng(0)
    return np.column_stack([random.choice(levels, _MOST_POINTS) for levels in offered.values()])


def _points_around(offered: Mapping[str, tuple[int, ...]], around: Mapping[str, int]) -> Grid:
    """All combinations in which at most two levels are not those of ``around``."""
    points = []
    for moved in combinations(offered, 2):
        free = [levels if name in moved else (around[name],) for name, levels in offered.items()]
        points.append(np.array(list(product(*free)), np.int64))
    every = np.unique(np.vstack(points), axis=0)
    if len(every) > _MOST_POINTS:
        every = np.random.default_rng(0).permutation(every)[:_MOST_POINTS]
    return every


def _trust(points: Grid, near_full: Sequence[bool]) -> npt.NDArray[np.float64]:
    share = points / np.maximum(points.max(axis=0), 1)
    return np.asarray(np.exp(_SLOPE * ((share - 1) * np.array(near_full)).sum(axis=1)))


def _columns(
    points: Grid, offered: Mapping[str, tuple[int, ...]], named: Collection[str]
) -> tuple[npt.NDArray[np.float64], list[tuple[Any, ...]]]:
    """One column a level and a pair of levels; where those are too many, products of levels, and
    for each name a line over the other's levels.
    """
    names = tuple(offered)
    hits = {
        name: {level: points[:, i] == level for level in offered[name]}
        for i, name in enumerate(names)
    }
    columns: list[npt.NDArray[Any]] = [np.ones(len(points))]
    keys: list[tuple[Any, ...]] = [()]
    for name in names:
        columns += hits[name].values()
        keys += [(name, level) for level in hits[name]]
    cells = sum(len(offered[a]) * len(offered[b]) for a, b in combinations(names, 2))
    for (i, a), (j, b) in combinations(enumerate(names), 2):
        if cells <= _MOST_COLUMNS:
            for x, y in product(offered[a], offered[b]):
                columns.append(hits[a][x] & hits[b][y])
                keys.append((a, b, x, y))
        elif a in named or b in named:
            line, (name, places) = (a, (b, j)) if b in named else (b, (a, i))
            size = points[:, i if line == a else j] / max(max(offered[line]), 1)
            for x in offered[name]:
                columns.append(np.where(points[:, places] == x, size, 0.0))
                keys.append((a, b, line, x, max(max(offered[line]), 1)))
        else:
            most = max(offered[a]) * max(offered[b])
            columns.append(points[:, i] * points[:, j] / most)
            keys.append((a, b, most))
    return np.column_stack(columns).astype(np.float64), keys


def _put(terms: Terms, key: tuple[Any, ...], weight: float) -> None:
    if not key:
        terms.constant += weight
    elif len(key) == 2:
        terms.unary[key[0]][key[1]] += weight
    elif len(key) == 4:
        terms.pairs[key[0], key[1]][key[2], key[3]] += weight
    elif len(key) == 5:
        a, b, line, name, most = key
        for i, j in terms.pairs[a, b]:
            size, at = (i, j) if line == a else (j, i)
            if at == name:
                terms.pairs[a, b][i, j] += weight * size / most
    else:
        cells = terms.pairs[key[0], key[1]]
        for i, j in cells:
            cells[i, j] += weight * i * j / key[2]

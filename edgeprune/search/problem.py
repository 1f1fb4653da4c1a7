"""The allocation problem: one level for each group, least distortion within a time."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import EdgepruneError

Array = npt.NDArray[np.float64]
Choice = npt.NDArray[np.intp]

# Sums of the same times in another order differ in their last bits; a budget forgives that much.
RELATIVE_SLACK = 1e-9


@dataclass(frozen=True, eq=False)
class Group:
    """The alternatives of one structure, of which exactly one is taken.

    Attributes:
        name: Unique in the problem.
        levels: What each alternative is called; distinct integers of the caller's meaning.
        distortion: Shape ``(len(levels),)``; ``inf`` forbids an alternative.
        time_ms: Shape ``(len(levels),)``; finite, may be negative.
    """

    name: str
    levels: tuple[int, ...]
    distortion: Array
    time_ms: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(int(level) for level in self.levels))
        shape = (len(self.levels),)
        _freeze(self, "distortion", shape, self.name)
        _freeze(self, "time_ms", shape, self.name)
        if len(set(self.levels)) != len(self.levels):
            raise EdgepruneError(f"group '{self.name}' lists a level twice: {self.levels}")
        if np.isnan(self.distortion).any() or (self.distortion == -np.inf).any():
            raise EdgepruneError(f"group '{self.name}' has a distortion that is NaN or -inf")
        if not np.isfinite(self.distortion).any():
            raise EdgepruneError(f"group '{self.name}' has no alternative of finite distortion")
        if not np.isfinite(self.time_ms).all():
            raise EdgepruneError(f"group '{self.name}' has a time that is not finite")

    def take(self, kept: Sequence[int] | npt.NDArray[Any]) -> "Group":
        """The same group with only the alternatives at the indices ``kept``."""
        index = np.asarray(kept, dtype=np.intp)
        levels = tuple(self.levels[i] for i in index)
        return Group(self.name, levels, self.distortion[index], self.time_ms[index])


@dataclass(frozen=True, eq=False)
class Pair:
    """Time that depends on the levels of two groups together.

    Attributes:
        first: Name of the group that indexes the rows.
        second: Name of the group that indexes the columns; not ``first``.
        time_ms: Shape ``(levels of first, levels of second)``; finite, may be negative.
    """

    first: str
    second: str
    time_ms: Array

    def __post_init__(self) -> None:
        _freeze(self, "time_ms", None, f"{self.first} x {self.second}")
        if self.first == self.second:
            raise EdgepruneError(f"a pair joins group '{self.first}' with itself")
        if not np.isfinite(self.time_ms).all():
            raise EdgepruneError(f"pair {self.first} x {self.second} has a time that is not finite")


@dataclass(frozen=True, eq=False)
class Problem:
    """Groups, the pairs between them, and the time that nothing changes."""

    groups: tuple[Group, ...]
    pairs: tuple[Pair, ...] = ()
    base_ms: float = 0.0
    index: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        object.__setattr__(self, "pairs", tuple(self.pairs))
        object.__setattr__(self, "base_ms", float(self.base_ms))
        object.__setattr__(self, "index", {g.name: i for i, g in enumerate(self.groups)})
        if len(self.index) != len(self.groups):
            raise EdgepruneError("two groups of the search problem have the same name")
        if not math.isfinite(self.base_ms):
            raise EdgepruneError(f"the base time of the search problem is {self.base_ms}")
        for pair in self.pairs:
            self._check(pair)

    def _check(self, pair: Pair) -> None:
        for name in (pair.first, pair.second):
            if name not in self.index:
                raise EdgepruneError(f"pair {pair.first} x {pair.second}: no group '{name}'")
        shape = tuple(len(self[name].levels) for name in (pair.first, pair.second))
        if pair.time_ms.shape != shape:
            raise EdgepruneError(
                f"pair {pair.first} x {pair.second} has times of shape {pair.time_ms.shape}, "
                f"the groups have {shape} levels"
            )

    def __getitem__(self, name: str) -> Group:
        return self.groups[self.index[name]]

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """For each pair the indices of its two groups."""
        return tuple((self.index[p.first], self.index[p.second]) for p in self.pairs)

    @cached_property
    def joined(self) -> tuple[tuple[tuple[int, Array], ...], ...]:
        """For each group its pairs: the other group and the times, own levels in the rows."""
        found: list[list[tuple[int, Array]]] = [[] for _ in self.groups]
        for pair, (first, second) in zip(self.pairs, self.edges, strict=True):
            found[first].append((second, pair.time_ms))
            found[second].append((first, pair.time_ms.T))
        return tuple(tuple(pairs) for pairs in found)

    def choice(self, levels: Mapping[str, int]) -> Choice:
        """The index of each group's level, in the order of the groups.

        Raises:
            EdgepruneError: A group or a level is unknown, or a group has no level.
        """
        unknown = sorted(set(levels) - set(self.index))
        missing = sorted(set(self.index) - set(levels))
        if unknown or missing:
            raise EdgepruneError(f"levels do not fit the problem: {unknown=}, {missing=}")
        try:
            picked = [self._position[g.name][int(levels[g.name])] for g in self.groups]
        except KeyError as error:
            raise EdgepruneError(f"level {error} is not among a group's levels") from None
        return np.array(picked, dtype=np.intp)

    @cached_property
    def _position(self) -> dict[str, dict[int, int]]:
        return {g.name: {level: i for i, level in enumerate(g.levels)} for g in self.groups}

    def levels(self, choice: Choice) -> dict[str, int]:
        """The level of each group, by name."""
        return {g.name: g.levels[i] for g, i in zip(self.groups, choice, strict=True)}

    def evaluate(self, levels: Mapping[str, int]) -> tuple[float, float]:
        """Distortion and time in ms of a plan, straight from the tables."""
        return self.evaluate_choice(self.choice(levels))

    def evaluate_choice(self, choice: Choice) -> tuple[float, float]:
        """As `evaluate`, of level indices; exactly rounded, so in no order's debt."""
        picked = list(zip(self.groups, choice, strict=True))
        times = [self.base_ms, *(float(g.time_ms[i]) for g, i in picked)]
        for pair, (first, second) in zip(self.pairs, self.edges, strict=True):
            times.append(float(pair.time_ms[choice[first], choice[second]]))
        return math.fsum(float(g.distortion[i]) for g, i in picked), math.fsum(times)

    def times_of(self, choice: Choice, group: int) -> Array:
        """Time in ms that each level of one group costs while the others stay as chosen."""
        total = self.groups[group].time_ms.copy()
        for other, times in self.joined[group]:
            total += times[:, choice[other]]
        return total

    def take(self, kept: Sequence[npt.NDArray[Any]]) -> "Problem":
        """The same problem with only the alternatives ``kept[group]`` of each group."""
        groups = [g.take(k) for g, k in zip(self.groups, kept, strict=True)]
        pairs = [
            Pair(p.first, p.second, p.time_ms[np.ix_(kept[a], kept[b])])
            for p, (a, b) in zip(self.pairs, self.edges, strict=True)
        ]
        return Problem(tuple(groups), tuple(pairs), self.base_ms)

    def to_json(self) -> str:
        """JSON text; forbidden distortions become null."""
        groups = [
            {
                "name": g.name,
                "levels": g.levels,
                "distortion": [d if math.isfinite(d) else None for d in g.distortion.tolist()],
                "time_ms": g.time_ms.tolist(),
            }
            for g in self.groups
        ]
        pairs = [
            {"first": p.first, "second": p.second, "time_ms": p.time_ms.tolist()}
            for p in self.pairs
        ]
        return json.dumps({"base_ms": self.base_ms, "groups": groups, "pairs": pairs})

    @classmethod
    def from_json(cls, text: str) -> "Problem":
        """The problem that `to_json` wrote, equal to the last bit."""
        data = json.loads(text)
        groups = [
            Group(
                g["name"],
                tuple(g["levels"]),
                np.array([math.inf if d is None else d for d in g["distortion"]]),
                np.array(g["time_ms"]),
            )
            for g in data["groups"]
        ]
        pairs = [Pair(p["first"], p["second"], np.array(p["time_ms"])) for p in data["pairs"]]
        return cls(tuple(groups), tuple(pairs), data["base_ms"])


def time_limit_ms(budget_ms: float) -> float:
    """The largest time that counts as within the budget.

    Raises:
        EdgepruneError: The budget is not a finite number.
    """
    if not math.isfinite(budget_ms):
        raise EdgepruneError(f"the budget of a search must be finite, it is {budget_ms}")
    return budget_ms + RELATIVE_SLACK * max(1.0, abs(budget_ms))


def _freeze(owner: object, name: str, shape: tuple[int, ...] | None, title: str) -> None:
    """Replace an array attribute by a read-only float64 copy of the expected shape."""
    array = np.array(getattr(owner, name), dtype=np.float64)
    if shape is None and array.ndim != 2:
        raise EdgepruneError(f"{title}: {name} must have two dimensions, it has {array.ndim}")
    if shape is not None and array.shape != shape:
        raise EdgepruneError(f"{title}: {name} has shape {array.shape} for {shape[0]} levels")
    array.flags.writeable = False
    object.__setattr__(owner, name, array)

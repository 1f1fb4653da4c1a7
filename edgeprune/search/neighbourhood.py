"""Plans near a plan that keep the budget: the moves of the local search on the joint loss."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgeprune.errors import EdgepruneError
from edgeprune.search.problem import Array, Choice, Problem, time_limit_ms
from edgeprune.search.warm import improve, repair

Kind = Literal["single", "shift", "pay", "swap", "drop", "widen"]

# Down moves tried of a group: the next levels, and the fastest one in any case.
_STEPS_DOWN = 4


@dataclass(frozen=True)
class Move:
    """A plan within the budget, and how it came about.

    Attributes:
        kind: ``single`` changes one group; ``shift`` takes time from one group and gives it to
            another; ``pay`` gives one group a level and takes the time from another; ``swap``
            exchanges two groups' levels; ``drop`` puts a group at its fastest level and spends
            the time greedily; ``widen`` raises one group and saves the time greedily.
        levels: The level of each group.
        distortion: Additive distortion of the plan.
        time_ms: Time of the plan.
    """

    kind: Kind
    levels: dict[str, int]
    distortion: float
    time_ms: float


def neighbours(problem: Problem, levels: Mapping[str, int], budget_ms: float) -> list[Move]:
    """All moves from a plan, without duplicates, the least additive distortion first.

    Args:
        problem: What there is to choose from; forbidden levels are never proposed.
        levels: A plan within the budget.
        budget_ms: Largest time of a plan, in ms.

    Raises:
        EdgepruneError: The plan itself is not within the budget, or uses a forbidden level.
    """
    limit_ms = time_limit_ms(budget_ms)
    distortion, time_ms = problem.evaluate(levels)
    if time_ms > limit_ms or not np.isfinite(distortion):
        raise EdgepruneError(
            f"a local search must start within the budget of {budget_ms:.6g} ms and without "
            f"forbidden levels; the plan takes {time_ms:.6g} ms at distortion {distortion:.4g}"
        )
    problem = problem.take([np.flatnonzero(np.isfinite(g.distortion)) for g in problem.groups])
    start = problem.choice(levels)
    moves: dict[bytes, Move] = {}
    for kind, choice in _proposals(problem, start, limit_ms):
        key = choice.tobytes()
        if key in moves or np.array_equal(choice, start):
            continue
        distortion, time_ms = problem.evaluate_choice(choice)
        if time_ms <= limit_ms:
            moves[key] = Move(kind, problem.levels(choice), distortion, time_ms)
    return sorted(moves.values(), key=lambda m: (m.distortion, m.time_ms))


def _proposals(problem: Problem, start: Choice, limit_ms: float) -> Iterator[tuple[Kind, Choice]]:
    spare_ms = limit_ms - problem.evaluate_choice(start)[1]
    for i in range(len(problem.groups)):
        times = problem.times_of(start, i)
        slower = times - times[start[i]]
        for level in np.flatnonzero(slower <= spare_ms).tolist():
            yield "single", _with(start, i, level)
        for level in _downs(slower):
            yield from _shifts(problem, _with(start, i, level), i, limit_ms)
        for level in _ups(slower):
            yield from _payments(problem, _with(start, i, level), i, limit_ms)
        yield from _drop(problem, start, i, limit_ms)
    yield from _swaps(problem, start)


def _downs(slower: Array) -> Choice:
    """Faster levels, nearest first; of many only the next ones and the fastest."""
    order: Choice = np.argsort(-slower, kind="stable")
    faster = order[slower[order] < 0]
    return np.unique(np.concatenate([faster[:_STEPS_DOWN], faster[-1:]]))


def _ups(slower: Array) -> Choice:
    order: Choice = np.argsort(slower, kind="stable")
    return order[slower[order] > 0][:_STEPS_DOWN]


def _shifts(
    problem: Problem, lowered: Choice, group: int, limit_ms: float
) -> Iterator[tuple[Kind, Choice]]:
    """Give what a lowered group saved to each other group in turn."""
    spare_ms = limit_ms - problem.evaluate_choice(lowered)[1]
    for other in range(len(problem.groups)):
        if other == group:
            continue
        level = _best_within(problem, lowered, other, spare_ms)
        if level is not None and level != lowered[other]:
            yield "shift", _with(lowered, other, level)


def _payments(
    problem: Problem, raised: Choice, group: int, limit_ms: float
) -> Iterator[tuple[Kind, Choice]]:
    """Take what a raised group costs from each other group in turn, or from the cheapest."""
    spare_ms = limit_ms - problem.evaluate_choice(raised)[1]
    for other in range(len(problem.groups)):
        level = None if other == group else _best_within(problem, raised, other, spare_ms)
        if level is not None:
            yield "pay", _with(raised, other, level)
    paid = repair(problem, limit_ms, raised, {group})
    if paid is not None:
        yield "widen", improve(problem, limit_ms, paid, {group})


def _drop(
    problem: Problem, start: Choice, group: int, limit_ms: float
) -> Iterator[tuple[Kind, Choice]]:
    """Take a group to its fastest level and spend the time where it lowers distortion most."""
    fastest = int(problem.times_of(start, group).argmin())
    dropped = _with(start, group, fastest)
    if fastest != start[group] and problem.evaluate_choice(dropped)[1] <= limit_ms:
        yield "drop", improve(problem, limit_ms, dropped, {group})


def _swaps(problem: Problem, start: Choice) -> Iterator[tuple[Kind, Choice]]:
    """Exchange the levels of groups that offer the same ones."""
    for i, first in enumerate(problem.groups):
        for j in range(i + 1, len(problem.groups)):
            if first.levels == problem.groups[j].levels and start[i] != start[j]:
                swapped = start.copy()
                swapped[i], swapped[j] = start[j], start[i]
                yield "swap", swapped


def _best_within(problem: Problem, choice: Choice, group: int, spare_ms: float) -> int | None:
    """The level of least distortion that costs no more than the spare time (or pays a debt)."""
    times = problem.times_of(choice, group)
    affordable = np.flatnonzero(times - times[choice[group]] <= spare_ms)
    if not len(affordable):
        return None
    return int(affordable[problem.groups[group].distortion[affordable].argmin()])


def _with(choice: Choice, group: int, level: int | np.intp) -> Choice:
    changed = choice.copy()
    changed[group] = level
    return changed

"""Feasible plans without a solver: where the search falls back and what it must beat."""

from collections.abc import Collection, Iterable

import numpy as np

from edgeprune.search.problem import Choice, Problem


def best_feasible(problem: Problem, limit_ms: float, starts: Iterable[Choice]) -> Choice | None:
    """The least distortion reached greedily from any start, or None if none becomes feasible.

    Args:
        problem: All distortions finite.
        limit_ms: Largest time allowed, in ms.
        starts: Choices to repair and improve, such as those of the Lagrangian bound.
    """
    best: Choice | None = None
    best_distortion = np.inf
    for start in _nearest(problem, limit_ms, starts):
        choice = repair(problem, limit_ms, start)
        if choice is None:
            continue
        choice = improve(problem, limit_ms, choice)
        distortion, _ = problem.evaluate_choice(choice)
        if distortion < best_distortion:
            best, best_distortion = choice, distortion
    return best


def _nearest(problem: Problem, limit_ms: float, starts: Iterable[Choice]) -> list[Choice]:
    """The starts around the limit, on both sides; those far away lead nowhere better."""
    timed = sorted(
        ((problem.evaluate_choice(s)[1], i, s) for i, s in enumerate(starts)),
        key=lambda entry: entry[:2],
    )
    under = [s for time_ms, _, s in timed if time_ms <= limit_ms]
    over = [s for time_ms, _, s in timed if time_ms > limit_ms]
    return under[-3:] + over[:3]


def repair(
    problem: Problem, limit_ms: float, choice: Choice, locked: Collection[int] = ()
) -> Choice | None:
    """Save time by the cheapest single changes until the plan is within the limit, or None."""
    choice = choice.copy()
    while problem.evaluate_choice(choice)[1] > limit_ms:
        move = _best_change(problem, choice, np.inf, locked, saving=True)
        if move is None:
            return None
        choice[move[0]] = move[1]
    return choice


def improve(
    problem: Problem, limit_ms: float, choice: Choice, locked: Collection[int] = ()
) -> Choice:
    """Spend spare time on the single changes that lower distortion most per millisecond.

    Args:
        problem: All distortions finite.
        limit_ms: Largest time allowed, in ms.
        choice: A plan within the limit.
        locked: Groups that stay as they are.
    """
    choice = choice.copy()
    while True:
        spare_ms = limit_ms - problem.evaluate_choice(choice)[1]
        move = _best_change(problem, choice, spare_ms, locked, saving=False)
        if move is None:
            return choice
        changed = choice.copy()
        changed[move[0]] = move[1]
        # Added up in another order the time may differ in its last bit: the tables decide.
        if problem.evaluate_choice(changed)[1] > limit_ms:
            return choice
        choice = changed


def _best_change(
    problem: Problem, choice: Choice, spare_ms: float, locked: Collection[int], *, saving: bool
) -> tuple[int, int] | None:
    """The single change of best exchange between distortion and time, or None."""
    best: tuple[float, int, int] | None = None
    for i, group in enumerate(problem.groups):
        if i in locked:
            continue
        times = problem.times_of(choice, i)
        slower = times - times[choice[i]]
        worse = group.distortion - group.distortion[choice[i]]
        pays, costs = (-slower, worse) if saving else (-worse, slower)
        useful = (pays > 0) & (slower <= spare_ms)
        if not useful.any():
            continue
        # What costs nothing is worth more than any exchange.
        rate = np.where(costs <= 0, -pays * 1e12, costs / np.where(pays > 0, pays, 1.0))
        level = int(np.where(useful, rate, np.inf).argmin())
        if best is None or rate[level] < best[0]:
            best = (float(rate[level]), i, level)
    return None if best is None else best[1:]

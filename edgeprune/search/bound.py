"""A lower bound on the distortion within a time, found without the MILP solver.

The budget is priced with a multiplier and the priced problem is solved exactly (Everett,
"Generalized Lagrange multiplier method", Operations Research 11, 1963). Any multiplier gives a
valid bound, so the bound certifies a plan even when the solver is wrong.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgeprune.search.elimination import (
    EliminationOrder,
    PairCost,
    elimination_order,
    min_marginals,
    minimise,
)
from edgeprune.search.problem import Array, Choice, Group, Problem

_MOST_STEPS = 100


@dataclass(frozen=True, eq=False)
class Dual:
    """What pricing the time told.

    Attributes:
        bound: No plan within the time limit has less distortion; ``inf`` if there is none.
        multiplier: Distortion that a millisecond is worth at the bound.
        fastest_ms: No plan takes less time.
        exact: Whether every pair entered as it is; else weak pairs entered by their least time.
        choices: Choices met on the way, fastest first, of the problem as given.
    """

    bound: float
    multiplier: float
    fastest_ms: float
    exact: bool
    choices: tuple[Choice, ...]


class PricedProblem:
    """A problem, relaxed where its pairs form too dense a graph, to be solved at any price."""

    def __init__(self, problem: Problem) -> None:
        sizes = [len(g.levels) for g in problem.groups]
        weights = [float(np.ptp(p.time_ms - _separable(p.time_ms)[2])) for p in problem.pairs]
        order = elimination_order(sizes, problem.edges, weights)
        self.exact = not order.dropped
        self.problem = _without(problem, order.dropped)
        self.order = EliminationOrder(order.steps, frozenset())

    def solve(self, price: float, weight: float = 1.0) -> tuple[Choice, float, float]:
        """The choice of least ``weight * distortion + price * time`` with its two sums."""
        choice = minimise(self.order, *self._costs(price, weight))
        return choice, *self.problem.evaluate_choice(choice)

    def marginals(self, price: float) -> list[Array]:
        """Least ``distortion + price * time`` of the plans with each level of each group."""
        fixed = price * self.problem.base_ms
        return [m + fixed for m in min_marginals(self.order, *self._costs(price, 1.0))]

    def _costs(self, price: float, weight: float) -> tuple[list[Array], list[PairCost]]:
        problem = self.problem
        unary = [weight * g.distortion + price * g.time_ms for g in problem.groups]
        pairs = zip(problem.edges, problem.pairs, strict=True)
        return unary, [(edge, price * pair.time_ms) for edge, pair in pairs]


def lagrangian_bound(problem: Problem, limit_ms: float) -> Dual:
    """The largest Lagrangian bound on the distortion of plans that take at most ``limit_ms``.

    The dual function is concave and piecewise linear. Instead of halving an interval of
    multipliers, each step prices time by the line between the best choice known on either side
    of the limit, which ends at the exact maximum after finitely many steps.

    Args:
        problem: All distortions finite (see `drop_dominated`).
        limit_ms: Largest time allowed, in ms.
    """
    priced = PricedProblem(problem)
    cheap, cheap_distortion, cheap_ms = priced.solve(0.0)
    fast, fast_distortion, fast_ms = priced.solve(1.0, weight=0.0)
    fastest_ms, choices = fast_ms, [fast, cheap]
    if fast_ms > limit_ms:
        return Dual(math.inf, math.inf, fastest_ms, priced.exact, tuple(choices))
    bound, multiplier = cheap_distortion, 0.0
    for _ in range(_MOST_STEPS):
        if cheap_ms <= limit_ms:
            break
        price = max(0.0, (fast_distortion - cheap_distortion) / (cheap_ms - fast_ms))
        choice, distortion, time_ms = priced.solve(price)
        value = distortion + price * time_ms
        if value - price * limit_ms > bound:
            bound, multiplier = value - price * limit_ms, price
        on_line = cheap_distortion + price * cheap_ms
        if value >= on_line - 1e-13 * (abs(on_line) + abs(distortion)):
            break
        choices.append(choice)
        if time_ms <= limit_ms:
            fast, fast_distortion, fast_ms = choice, distortion, time_ms
        else:
            cheap, cheap_distortion, cheap_ms = choice, distortion, time_ms
    return Dual(bound, multiplier, fastest_ms, priced.exact, tuple(choices))


def _without(problem: Problem, dropped: frozenset[int]) -> Problem:
    """The problem with the dropped pairs replaced by the least time each level can mean."""
    if not dropped:
        return problem
    extra: list[Array] = [np.zeros(len(g.levels)) for g in problem.groups]
    for k in dropped:
        rows, columns, _ = _separable(problem.pairs[k].time_ms)
        first, second = problem.edges[k]
        extra[first] += rows
        extra[second] += columns
    groups = tuple(
        Group(g.name, g.levels, g.distortion, g.time_ms + more)
        for g, more in zip(problem.groups, extra, strict=True)
    )
    pairs = tuple(p for k, p in enumerate(problem.pairs) if k not in dropped)
    return Problem(groups, pairs, problem.base_ms)


def _separable(time_ms: Array) -> tuple[Array, Array, Array]:
    """Rows and columns whose sum is nowhere above the table, and that sum."""
    rows = time_ms.min(axis=1)
    columns = (time_ms - rows[:, None]).min(axis=0)
    return rows, columns, rows[:, None] + columns


def split(problem: Problem) -> Iterator[tuple[int, Array, Array, Array]]:
    """For each pair its index, separable rows and columns, and the residual table >= 0."""
    for k, pair in enumerate(problem.pairs):
        rows, columns, both = _separable(pair.time_ms)
        yield k, rows, columns, np.maximum(pair.time_ms - both, 0.0)

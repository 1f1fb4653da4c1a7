"""Minimise a sum of unary and pairwise costs exactly, one group at a time.

Min-sum dynamic programming in the form of variable elimination (Dechter, "Bucket elimination",
Artificial Intelligence 113, 1999): on a chain it is the Viterbi recursion, on a tree it passes
messages from the leaves, and on a graph with cycles its tables span as many groups as the
elimination order makes meet. Edges that would make a table too large are left to the caller.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.search.problem import Array, Choice

PairCost = tuple[tuple[int, int], Array]

_MOST_CELLS = 500_000


@dataclass(frozen=True)
class EliminationOrder:
    """An order of the groups, the neighbours each still has, and the edges it cannot keep."""

    steps: tuple[tuple[int, tuple[int, ...]], ...]
    dropped: frozenset[int]


@dataclass(frozen=True, eq=False)
class _Table:
    scope: tuple[int, ...]
    cost: Array


def elimination_order(
    sizes: Sequence[int], edges: Sequence[tuple[int, int]], weights: Sequence[float]
) -> EliminationOrder:
    """A cheap order, after dropping the lightest edges of every table that is too large.

    Args:
        sizes: Levels of each group.
        edges: Pairs of group indices; parallel edges are allowed.
        weights: How much would be lost with each edge.
    """
    dropped: set[int] = set()
    while True:
        alive = [k for k in range(len(edges)) if k not in dropped]
        steps = _greedy(sizes, [edges[k] for k in alive])
        large = [step for step in steps if step[1] and _cells(sizes, step) > _MOST_CELLS]
        # A tree's tables join two groups only; those are kept whatever they cost.
        large = [step for step in large if len(step[1]) > 1]
        if not large:
            return EliminationOrder(tuple(steps), frozenset(dropped))
        group, others = large[0]
        met = {group, *others}
        inside = [k for k in alive if met.issuperset(edges[k])] or alive
        dropped.add(min(inside, key=lambda k: (weights[k], k)))


def minimise(
    order: EliminationOrder, unary: Sequence[Array], pairwise: Sequence[PairCost]
) -> Choice:
    """The choice of least total cost.

    Args:
        order: An order made for these groups and edges.
        unary: Cost of each level of each group.
        pairwise: Edges that the order kept, with costs of shape (levels, levels).
    """
    choice = np.zeros(len(unary), dtype=np.intp)
    for scope, total in reversed(_buckets(order, unary, pairwise)):
        picked = total[(slice(None), *choice[list(scope[1:])])]
        choice[scope[0]] = picked.argmin()
    return choice


def min_marginals(
    order: EliminationOrder, unary: Sequence[Array], pairwise: Sequence[PairCost]
) -> list[Array]:
    """For each group and level the least total cost of all choices that take the level.

    The messages of `minimise` are passed on, and back again from the last group to the first.
    """
    marginals = [np.empty(0)] * len(unary)
    beliefs: dict[int, tuple[tuple[int, ...], Array]] = {}
    rest = 0.0
    rank = {group: position for position, (group, _) in enumerate(order.steps)}
    for scope, total in reversed(_buckets(order, unary, pairwise)):
        group, others = scope[0], scope[1:]
        if others:
            outer_scope, outer = beliefs[min(others, key=rank.__getitem__)]
            gone = tuple(axis for axis, g in enumerate(outer_scope) if g not in others)
            seen = outer.min(axis=gone)
            left = [g for g in outer_scope if g in others]
            back = seen.transpose([left.index(g) for g in others]) - total.min(axis=0)
            total = total + back
        else:
            rest += float(total.min())
        beliefs[group] = (scope, total)
        marginals[group] = total.min(axis=tuple(range(1, total.ndim)))
    # Parts of the graph that are not joined do not see each other: add the others' minima.
    return [marginal + (rest - float(marginal.min())) for marginal in marginals]


def _buckets(
    order: EliminationOrder, unary: Sequence[Array], pairwise: Sequence[PairCost]
) -> list[tuple[tuple[int, ...], Array]]:
    """Each eliminated group with its remaining neighbours, and the cost summed up over them."""
    tables: dict[int, list[_Table]] = {i: [] for i in range(len(unary))}
    rank = {group: position for position, (group, _) in enumerate(order.steps)}

    def file(table: _Table) -> None:
        if table.scope:
            tables[min(table.scope, key=rank.__getitem__)].append(table)

    for (first, second), cost in pairwise:
        file(_Table((first, second), cost))
    buckets = []
    for group, others in order.steps:
        scope = (group, *others)
        total = _join(scope, unary[group], tables.pop(group))
        buckets.append((scope, total))
        file(_Table(others, total.min(axis=0)))
    return buckets


def _join(scope: tuple[int, ...], unary: Array, tables: list[_Table]) -> Array:
    """Sum of the costs over the axes of ``scope``, whose first axis has the unary cost."""
    total = unary.reshape(-1, *[1] * (len(scope) - 1))
    for table in tables:
        axes = [scope.index(group) for group in table.scope]
        cost = table.cost.transpose(np.argsort(axes))
        shape = [1] * len(scope)
        for axis, size in zip(sorted(axes), cost.shape, strict=True):
            shape[axis] = size
        total = total + cost.reshape(shape)
    return total


def _greedy(
    sizes: Sequence[int], edges: list[tuple[int, int]]
) -> list[tuple[int, tuple[int, ...]]]:
    """Eliminate the group whose table is smallest, again and again."""
    around: dict[int, set[int]] = {i: set() for i in range(len(sizes))}
    for first, second in edges:
        around[first].add(second)
        around[second].add(first)
    steps: list[tuple[int, tuple[int, ...]]] = []
    while around:
        group = min(around, key=lambda i: (_cells(sizes, (i, tuple(around[i]))), i))
        others = around.pop(group)
        for other in others:
            around[other] |= others - {other}
            around[other].discard(group)
        steps.append((group, tuple(sorted(others))))
    return steps


def _cells(sizes: Sequence[int], step: tuple[int, tuple[int, ...]]) -> float:
    cells = float(sizes[step[0]])
    for other in step[1]:
        cells *= sizes[other]
    return cells

"""Drop alternatives that no optimal plan needs."""

import numpy as np
import numpy.typing as npt

from edgeprune.search.problem import Problem

Index = npt.NDArray[np.intp]

# Comparing all levels of a joined group costs levels^2 x levels of the other group; beyond this
# the comparison would take longer than the solver needs for the extra alternatives.
_MOST_COMPARISONS = 2e8


def drop_dominated(problem: Problem) -> Problem:
    """The problem without forbidden and dominated alternatives; its optimum is the same.

    An alternative is dominated when another one of its group has no more distortion and takes
    no more time, whatever the levels of the groups it shares a pair with.
    """
    kept: list[Index] = [np.flatnonzero(np.isfinite(g.distortion)) for g in problem.groups]
    for i, pairs in enumerate(problem.joined):
        if not pairs:
            kept[i] = _frontier(problem, i, kept[i])
    changed = {i for i, pairs in enumerate(problem.joined) if pairs}
    while changed:
        i = min(changed)
        changed.discard(i)
        survivors = _joined_frontier(problem, i, kept)
        if len(survivors) < len(kept[i]):
            kept[i] = survivors
            # Fewer levels here leave fewer cases in which a neighbour's alternative could pay.
            changed.update(other for other, _ in problem.joined[i])
    return problem.take(kept)


def _frontier(problem: Problem, group: int, kept: Index) -> Index:
    """The Pareto frontier of distortion against time of a group in no pair."""
    distortion = problem.groups[group].distortion[kept]
    time_ms = problem.groups[group].time_ms[kept]
    order = np.lexsort((distortion, time_ms))
    sorted_distortion = distortion[order]
    best_before = np.minimum.accumulate(np.concatenate(([np.inf], sorted_distortion[:-1])))
    return np.sort(kept[order[sorted_distortion < best_before]])


def _joined_frontier(problem: Problem, group: int, kept: list[Index]) -> Index:
    """What stays of a group in pairs when the worst case over its neighbours decides."""
    mine = kept[group]
    tables = [times[np.ix_(mine, kept[other])] for other, times in problem.joined[group]]
    if sum(len(mine) ** 2 * table.shape[1] for table in tables) > _MOST_COMPARISONS:
        return mine
    distortion = problem.groups[group].distortion[mine]
    time_ms = problem.groups[group].time_ms[mine]
    alive = np.ones(len(mine), dtype=bool)
    for i in range(len(mine)):
        if not alive[i]:
            continue
        worst = time_ms[i] - time_ms
        for table in tables:
            worst = worst + (table[i] - table).max(axis=1)
        beaten = alive & (worst <= 0) & (distortion[i] <= distortion)
        beaten[i] = False
        alive &= ~beaten
    return mine[alive]

"""Moves keep the budget; the local search lowers a loss that does not add up."""

import itertools
import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from allocations import cases, every_plan, random_problem
from hypothesis import given, settings

from edgeprune.errors import EdgepruneError
from edgeprune.search.fastest import fastest_plan
from edgeprune.search.local_search import Refined, SearchState, local_search
from edgeprune.search.neighbourhood import neighbours
from edgeprune.search.problem import Group, Problem, time_limit_ms

Levels = dict[str, int]
Loss = Callable[[Levels], float]


def joint_loss(problem: Problem, rng: np.random.Generator) -> Loss:
    """Additive distortion reweighted, with interactions of every two groups on top."""
    count = len(problem.groups)
    weight = rng.uniform(0.2, 1.5, count)
    table = {
        (i, j): rng.uniform(-0.5, 1.0, (len(a.levels), len(b.levels)))
        for (i, a), (j, b) in itertools.combinations(enumerate(problem.groups), 2)
    }

    def loss(levels: Levels) -> float:
        choice = problem.choice(levels)
        parts = [g.distortion[choice[i]] * weight[i] for i, g in enumerate(problem.groups)]
        parts += [t[choice[i], choice[j]] for (i, j), t in table.items()]
        return float(sum(parts))

    return loss


def least(problem: Problem, budget_ms: float, loss: Loss) -> float:
    """The optimum of the joint loss, by trying every plan."""
    limit_ms = time_limit_ms(budget_ms)
    names = [g.name for g in problem.groups]
    plans = itertools.product(*(g.levels for g in problem.groups))
    named = (dict(zip(names, plan, strict=True)) for plan in plans)
    return min(
        loss(levels)
        for levels in named
        if problem.evaluate(levels)[1] <= limit_ms and math.isfinite(problem.evaluate(levels)[0])
    )


def start_of(problem: Problem, share: float) -> tuple[Levels, float]:
    """The fastest plan and a budget with room for others."""
    fastest = fastest_plan(problem)
    times = [t for _, t in every_plan(problem)]
    return fastest.levels, fastest.time_ms + share * (max(times) - fastest.time_ms)


@settings(max_examples=200, deadline=None)
@given(case=cases())
def test_moves_keep_the_budget_and_are_distinct(case: tuple[Problem, float]) -> None:
    problem, _ = case
    levels, budget_ms = start_of(problem, 0.4)
    moves = neighbours(problem, levels, budget_ms)
    found = {tuple(sorted(m.levels.items())) for m in moves}
    assert len(found) == len(moves)
    assert tuple(sorted(levels.items())) not in found
    for move in moves:
        assert (move.distortion, move.time_ms) == problem.evaluate(move.levels)
        assert move.time_ms <= time_limit_ms(budget_ms)
        assert math.isfinite(move.distortion)
    assert [m.distortion for m in moves] == sorted(m.distortion for m in moves)
    # Every single change within the budget is among them.
    for group in problem.groups:
        for level in group.levels:
            changed = levels | {group.name: level}
            distortion, time_ms = problem.evaluate(changed)
            if changed != levels and math.isfinite(distortion) and time_ms <= budget_ms:
                assert tuple(sorted(changed.items())) in found


def test_moves_trade_time_between_groups() -> None:
    """With groups that cost a millisecond a level, every kind of move is there."""
    kept = np.arange(5)
    groups = tuple(
        Group(name, tuple(range(5)), weight * (4 - kept) ** 2, kept)
        for name, weight in zip("abcd", (1.0, 2.0, 3.0, 4.0), strict=True)
    )
    start = {"a": 2, "b": 1, "c": 3, "d": 2}
    moves = {tuple(m.levels.values()): m.kind for m in neighbours(Problem(groups), start, 9.0)}
    assert set(moves.values()) >= {"single", "shift", "pay", "swap", "drop"}
    assert (1, 3, 3, 2) in moves  # a level from a to b, and the spare one
    assert (0, 1, 3, 4) in moves  # all of a to d
    assert moves[1, 2, 3, 2] == "swap"  # a and b exchanged
    assert (0, 3, 3, 3) in moves  # a dropped, b and d widened
    assert (4, 1, 3, 2) not in moves
    flat = dict.fromkeys("abcd", 1)
    moves = {tuple(m.levels.values()): m.kind for m in neighbours(Problem(groups), flat, 4.0)}
    assert moves[0, 0, 0, 4] == "widen"  # d widened, all others pay


@pytest.mark.parametrize("graph", ["none", "chain", "star", "general"])
def test_reaches_the_optimum_of_the_joint_loss(graph: str) -> None:
    """Of 256 to 1,024 plans 60 evaluations are spent: mostly the best one is found."""
    rng = np.random.default_rng(2)
    reached, starts, ends, optima = 0, 0.0, 0.0, 0.0
    for _ in range(5):
        problem = random_problem(rng, graph, [4] * 5, whole_numbers=False, forbidden=0.05)
        loss = joint_loss(problem, rng)
        start, budget_ms = start_of(problem, 0.4)
        found = local_search(problem, [start], budget_ms, loss, evaluations=60)
        best = least(problem, budget_ms, loss)
        assert problem.evaluate(found.levels)[1] <= time_limit_ms(budget_ms)
        assert best - 1e-12 <= found.loss <= loss(start)
        assert found.loss == loss(found.levels)
        reached += found.loss <= best + 1e-12
        starts, ends, optima = starts + loss(start), ends + found.loss, optima + best
    assert reached >= 3
    assert starts - ends >= 0.9 * (starts - optima)


def test_an_unlimited_search_tries_everything_once() -> None:
    rng = np.random.default_rng(4)
    problem = random_problem(rng, "tree", [3] * 4, whole_numbers=False, forbidden=0.0)
    loss = joint_loss(problem, rng)
    start, budget_ms = start_of(problem, 0.6)
    seen: list[tuple[tuple[str, int], ...]] = []

    def counted(levels: Levels) -> float:
        seen.append(tuple(sorted(levels.items())))
        return loss(levels)

    found = local_search(problem, [start], budget_ms, counted, evaluations=10_000)
    assert found.ended == "exhausted"
    assert len(seen) == len(set(seen)) == found.evaluations
    assert found.loss == least(problem, budget_ms, loss)


@pytest.fixture
def searched() -> tuple[Problem, Levels, float, Loss]:
    rng = np.random.default_rng(9)
    problem = random_problem(rng, "general", [4] * 6, whole_numbers=False, forbidden=0.1)
    start, budget_ms = start_of(problem, 0.4)
    return problem, start, budget_ms, joint_loss(problem, rng)


@pytest.mark.parametrize("broken_after", [1, 2, 7, 19])
def test_a_broken_off_search_goes_on_as_if_it_had_not_been(
    broken_after: int, searched: tuple[Problem, Levels, float, Loss]
) -> None:
    problem, start, budget_ms, loss = searched
    whole, broken = SearchState(), SearchState()

    def break_off(state: SearchState) -> None:
        if len(state.evaluated) == broken_after:
            raise KeyboardInterrupt

    expected = local_search(problem, [start], budget_ms, loss, evaluations=25, state=whole)
    with pytest.raises(KeyboardInterrupt):
        local_search(
            problem,
            [start],
            budget_ms,
            loss,
            evaluations=25,
            state=broken,
            on_evaluation=break_off,
        )
    state = SearchState(list(broken.evaluated))
    assert len(state.evaluated) == broken_after
    found = local_search(problem, [start], budget_ms, loss, evaluations=25, state=state)
    assert found == expected
    assert state.evaluated == whole.evaluated


def test_seeds_differ_and_repeat(searched: tuple[Problem, Levels, float, Loss]) -> None:
    problem, start, budget_ms, loss = searched

    def run(seed: int) -> list[tuple[Levels, float]]:
        state = SearchState()
        local_search(problem, [start], budget_ms, loss, evaluations=20, seed=seed, state=state)
        return state.evaluated

    assert run(1) == run(1)
    assert any(run(1) != run(seed) for seed in (2, 3, 4))


def test_several_starts_are_evaluated_first(
    searched: tuple[Problem, Levels, float, Loss],
) -> None:
    problem, start, budget_ms, loss = searched
    others = [m.levels for m in neighbours(problem, start, budget_ms)[:2]]
    state = SearchState()
    local_search(problem, [start, *others], budget_ms, loss, evaluations=5, state=state)
    assert [levels for levels, _ in state.evaluated[:3]] == [start, *others]


def test_losses_that_are_no_numbers_are_avoided(
    searched: tuple[Problem, Levels, float, Loss],
) -> None:
    problem, start, budget_ms, loss = searched
    group = problem.groups[0]

    def partly(levels: Levels) -> float:
        return loss(levels) if levels[group.name] == start[group.name] else math.nan

    state = SearchState()
    found = local_search(problem, [start], budget_ms, partly, evaluations=40, state=state)
    assert math.isfinite(found.loss)
    assert found.loss <= loss(start)
    nothing = local_search(problem, [start], budget_ms, lambda _: math.nan, evaluations=40)
    assert nothing == Refined(start, math.inf, 1, "exhausted")


def test_a_passed_deadline_still_gives_the_start(
    searched: tuple[Problem, Levels, float, Loss],
) -> None:
    problem, start, budget_ms, loss = searched
    found = local_search(problem, [start], budget_ms, loss, deadline=time.monotonic() - 1)
    assert found == Refined(start, loss(start), 1, "deadline")


def test_known_plans_over_the_budget_only_teach(
    searched: tuple[Problem, Levels, float, Loss],
) -> None:
    problem, start, budget_ms, loss = searched
    known = [m.levels for m in neighbours(problem, start, budget_ms + 5.0)]
    known = [levels for levels in known if problem.evaluate(levels)[1] > budget_ms + 1e-6]
    assert known
    state = SearchState()
    for levels in known:
        state.record(levels, loss(levels) - 100)
    total = len(known) + 10
    found = local_search(problem, [start], budget_ms, loss, evaluations=total, state=state)
    assert found.evaluations == total
    assert all(problem.evaluate(p)[1] <= budget_ms + 1e-6 for p, _ in state.evaluated[len(known) :])
    assert found.levels in [levels for levels, _ in state.evaluated[len(known) :]]
    # Even when all evaluations are spent the start is there to be returned.
    state = SearchState([(levels, -100.0) for levels in known])
    found = local_search(problem, [start], budget_ms, loss, evaluations=1, state=state)
    assert (found.levels, found.loss) == (start, loss(start))


def test_a_start_over_the_budget_is_refused(
    searched: tuple[Problem, Levels, float, Loss],
) -> None:
    problem, start, _, loss = searched
    too_little_ms = problem.evaluate(start)[1] - 0.01
    with pytest.raises(EdgepruneError, match="within the budget"):
        local_search(problem, [start], too_little_ms, loss)

"""Dropping alternatives keeps the optimum; the Lagrangian bound is never above it."""

import itertools
import math

import numpy as np
import pytest
from allocations import GRAPHS, cases, every_plan, optimum, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.search import elimination
from edgeprune.search.bound import PricedProblem, lagrangian_bound
from edgeprune.search.dominance import drop_dominated
from edgeprune.search.elimination import elimination_order, minimise
from edgeprune.search.fixing import drop_hopeless
from edgeprune.search.problem import Group, Problem, time_limit_ms
from edgeprune.search.warm import best_feasible

many = settings(max_examples=600, deadline=None)


@many
@given(case=cases())
def test_dominance_keeps_the_optimum_of_every_budget(case: tuple[Problem, float]) -> None:
    problem, _ = case
    reduced = drop_dominated(problem)
    plans, left = every_plan(problem), every_plan(reduced)
    for _, limit_ms in plans:
        # Times of the smaller problem are sums of the same numbers in the same order.
        assert min(d for d, t in left if t <= limit_ms + 1e-12) == min(
            d for d, t in plans if t <= limit_ms + 1e-12
        )
    assert {g.name: set(g.levels) for g in reduced.groups}.items() <= {
        g.name: set(g.levels) & set(reduced[g.name].levels) for g in problem.groups
    }.items()


def test_dominance_drops_what_is_dominated() -> None:
    one = Group("a", (3, 5, 7, 9), [0.0, 1.0, 2.0, math.inf], [3.0, 4.0, 1.0, 0.0])
    assert drop_dominated(Problem((one,))).groups[0].levels == (3, 7)


@many
@given(case=cases(), price=st.floats(0, 20), above=st.sampled_from([0.0, 0.1, 3.0]))
def test_hopeless_alternatives_are_not_needed(
    case: tuple[Problem, float], price: float, above: float
) -> None:
    problem, budget_ms = case
    problem = drop_dominated(problem)
    best = optimum(problem, budget_ms)
    if math.isfinite(best):
        limit_ms = time_limit_ms(budget_ms)
        assert optimum(drop_hopeless(problem, limit_ms, best + above, price), budget_ms) == best


@many
@given(case=cases(), price=st.floats(0, 5))
def test_marginals_are_the_best_with_each_level(case: tuple[Problem, float], price: float) -> None:
    problem = drop_dominated(case[0])
    marginals = PricedProblem(problem).marginals(price)
    plans = itertools.product(*(range(len(g.levels)) for g in problem.groups))
    expected = [np.full(len(g.levels), math.inf) for g in problem.groups]
    for plan in plans:
        distortion, time_ms = problem.evaluate_choice(np.array(plan))
        for group, level in enumerate(plan):
            value = distortion + price * time_ms
            expected[group][level] = min(expected[group][level], value)
    for found, wanted in zip(marginals, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-9)


@many
@given(case=cases())
def test_bound_is_below_the_optimum_and_warm_plan_above(case: tuple[Problem, float]) -> None:
    problem, budget_ms = case
    problem = drop_dominated(problem)
    limit_ms = time_limit_ms(budget_ms)
    best = optimum(problem, budget_ms)
    dual = lagrangian_bound(problem, limit_ms)
    assert dual.exact
    assert dual.bound <= best + 1e-9
    assert math.isinf(dual.bound) == math.isinf(best)
    assert dual.fastest_ms == pytest.approx(min(t for _, t in every_plan(problem)))
    warm = best_feasible(problem, limit_ms, dual.choices)
    if math.isinf(best):
        assert warm is None
    else:
        assert warm is not None
        distortion, time_ms = problem.evaluate_choice(warm)
        assert time_ms <= limit_ms
        assert distortion >= best


@pytest.mark.parametrize("cells", [1, 10, 40])
def test_bound_stays_valid_when_pairs_are_relaxed(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With so small tables that a dense graph cannot be eliminated as it is."""
    monkeypatch.setattr(elimination, "_MOST_CELLS", cells)
    rng = np.random.default_rng(cells)
    relaxed = 0
    for _ in range(60):
        problem = random_problem(rng, "general", [3] * 5, whole_numbers=False, forbidden=0.0)
        times = sorted(t for _, t in every_plan(problem))
        budget_ms = times[int(rng.integers(len(times)))]
        dual = lagrangian_bound(problem, time_limit_ms(budget_ms))
        relaxed += not dual.exact
        assert dual.bound <= optimum(problem, budget_ms) + 1e-9
        assert dual.fastest_ms <= times[0] + 1e-9
    assert relaxed > 20


@pytest.mark.parametrize("graph", GRAPHS)
def test_bound_is_the_best_multiplier(graph: str) -> None:
    """No price on a fine grid gives a larger bound."""
    rng = np.random.default_rng(11)
    for _ in range(10):
        problem = random_problem(rng, graph, [4, 3, 4, 3], whole_numbers=False, forbidden=0.0)
        plans = np.array(every_plan(problem))
        limit_ms = float(np.quantile(plans[:, 1], 0.3))
        dual = lagrangian_bound(problem, limit_ms)
        prices = np.concatenate([np.linspace(0, 4 * dual.multiplier, 400), [dual.multiplier]])
        values = (plans[:, :1] + prices * (plans[:, 1:] - limit_ms)).min(axis=0)
        assert dual.bound >= values.max() - 1e-9
        assert dual.bound == pytest.approx(values[-1])


@pytest.mark.parametrize("graph", GRAPHS)
def test_elimination_finds_the_minimum(graph: str) -> None:
    rng = np.random.default_rng(5)
    for _ in range(30):
        problem = random_problem(rng, graph, [3, 4, 2, 3, 4], whole_numbers=False, forbidden=0.0)
        sizes = [len(g.levels) for g in problem.groups]
        order = elimination_order(sizes, problem.edges, [1.0] * len(problem.pairs))
        assert not order.dropped
        pairwise = [(e, p.time_ms) for e, p in zip(problem.edges, problem.pairs, strict=True)]
        choice = minimise(order, [g.time_ms for g in problem.groups], pairwise)
        _, time_ms = problem.evaluate_choice(choice)
        assert time_ms == pytest.approx(min(t for _, t in every_plan(problem)))

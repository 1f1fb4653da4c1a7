"""The search with joint times: its pairwise forms, and its plans against every plan tried."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from allocations import random_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import InfeasibleTarget
from edgeprune.latency.axis import Axis
from edgeprune.latency.conversions import Conversion, Conversions, SiteFormats, average_form
from edgeprune.latency.model import Joint
from edgeprune.latency.projection import Terms
from edgeprune.search import branch
from edgeprune.search.branch import solve_joint
from edgeprune.search.joint import JointProblem, with_terms
from edgeprune.search.problem import Problem, time_limit_ms
from edgeprune.search.solve import solve

Levels = dict[str, int]


def random_part(rng: np.random.Generator, problem: Problem) -> Joint:
    """The time of a layer whose inputs are those of one or two groups, besides two more."""
    names = [str(name) for name in rng.permutation([g.name for g in problem.groups])]
    summed = int(rng.integers(1, 3)) if len(names) > 3 else 1
    axes = (
        Axis(int(rng.integers(3)), tuple((n, int(rng.integers(1, 4))) for n in names[:summed])),
        *(Axis(0, ((name, 1),)) for name in names[summed : summed + 2]),
    )
    sizes = [
        {
            axis.size(dict(zip(axis.names, levels, strict=True)))
            for levels in itertools.product(*(problem[n].levels for n in axis.names))
        }
        for axis in axes
    ]
    return Joint(axes, {cell: float(rng.uniform(0, 9)) for cell in itertools.product(*sizes)})


@st.composite
def joint_problems(draw: st.DrawFn) -> tuple[JointProblem, np.random.Generator]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(2, 4), min_size=3, max_size=5))
    graph = draw(st.sampled_from(["none", "chain", "general"]))
    pairwise = random_problem(rng, graph, sizes, whole_numbers=False)
    parts = tuple(random_part(rng, pairwise) for _ in range(draw(st.integers(1, 3))))
    average = with_terms(pairwise, Terms(constant=4.5 * len(parts)))
    return JointProblem(pairwise, parts, average), rng


def with_conversions(joint: JointProblem, rng: np.random.Generator) -> JointProblem:
    """Two sites behind one another with conversions between them; what empties one bypasses it."""
    names = [str(name) for name in rng.permutation([g.name for g in joint.groups])]
    size, *rest = names
    first, second = (names[1], names[2])
    sites = {}
    for name, source in ((first, ""), (second, first)):
        levels = joint.pairwise[name].levels
        families = tuple(str(rng.choice(["dense", "int8"])) for _ in range(max(levels) + 1))
        emptied = joint.pairwise[rest[-1]].levels[0] * (name == first)
        sides = (Axis(-emptied, ((rest[-1], 1),)),)
        sites[name] = SiteFormats(source, sides, families)
    ms = {
        (level, before, after): float(rng.uniform(0, 1))
        for level in joint.pairwise[size].levels
        for before in ("dense", "int8")
        for after in ("dense", "int8")
    }
    parts = []
    for target in (first, second):
        part = Conversion(target, (Axis(0, ((size, 1),)),), ms, Terms())
        offered = {g.name: g.levels for g in joint.groups}
        parts.append(replace(part, average=average_form(part, sites, offered)))
    conversions = Conversions(sites, tuple(parts))
    pairwise = with_terms(joint.pairwise, conversions.average)
    small = replace(joint, pairwise=pairwise, conversions=conversions)
    plans = [(ms, plan) for plan, _, ms in every_plan(small)]
    return replace(small, fastest=min(plans, key=lambda entry: entry[0])[1])


def every_plan(joint: JointProblem) -> list[tuple[Levels, float, float]]:
    names = [g.name for g in joint.groups]
    plans = itertools.product(*(g.levels for g in joint.groups))
    found = [dict(zip(names, plan, strict=True)) for plan in plans]
    rows = [(plan, *joint.evaluate(plan)) for plan in found]
    return [(plan, lost, ms) for plan, lost, ms in rows if math.isfinite(lost)]


def some_plan(joint: JointProblem, rng: np.random.Generator) -> Levels:
    plans = every_plan(joint)
    return plans[int(rng.integers(len(plans)))][0]


def some_budget(joint: JointProblem, rng: np.random.Generator) -> float:
    times = sorted(ms for _, _, ms in every_plan(joint))
    return times[int(rng.integers(len(times)))]


@settings(deadline=None, max_examples=40)
@given(joint_problems())
def test_the_plan_is_the_best_of_all(case: tuple[JointProblem, np.random.Generator]) -> None:
    joint, rng = case
    budget = some_budget(joint, rng)
    best = min(lost for _, lost, ms in every_plan(joint) if ms <= time_limit_ms(budget))
    solution = solve_joint(joint, budget, gap=1e-9)
    lost, ms = joint.evaluate(solution.levels)
    assert ms <= time_limit_ms(budget) + 1e-9
    assert lost == pytest.approx(best, abs=1e-9)
    assert solution.lower_bound <= best + 1e-9


@settings(deadline=None, max_examples=25)
@given(joint_problems())
def test_moving_hubs_one_at_a_time_keeps_the_budget(
    case: tuple[JointProblem, np.random.Generator],
) -> None:
    joint, rng = case
    budget = some_budget(joint, rng)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branch, "_MOST_BRANCHES", 1)
        try:
            solution = solve_joint(joint, budget)
        except InfeasibleTarget:
            return  # such a start is a heuristic; the budget may be that of a single plan
    lost, ms = joint.evaluate(solution.levels)
    assert ms <= time_limit_ms(budget) + 1e-9
    assert lost == pytest.approx(solution.distortion)
    best = min(lost for _, lost, ms in every_plan(joint) if ms <= time_limit_ms(budget))
    assert solution.lower_bound <= best + 1e-9
    assert 0 <= solution.gap < math.inf or lost == 0


@settings(deadline=None, max_examples=30)
@given(joint_problems())
def test_with_the_hubs_fixed_the_pairwise_form_is_exact(
    case: tuple[JointProblem, np.random.Generator],
) -> None:
    joint, rng = case
    plan, other = some_plan(joint, rng), some_plan(joint, rng)
    other |= {hub: plan[hub] for hub in joint.hubs}
    assert joint.given(plan, joint.hubs).evaluate(other)[1] == pytest.approx(
        joint.evaluate(other)[1]
    )


@settings(deadline=None, max_examples=30)
@given(joint_problems())
def test_near_a_plan_the_form_has_its_time_and_about_that_of_plans_beside_it(
    case: tuple[JointProblem, np.random.Generator],
) -> None:
    joint, rng = case
    plan = some_plan(joint, rng)
    near = joint.near(plan)
    assert near.evaluate(plan)[1] == pytest.approx(joint.evaluate(plan)[1], abs=1e-9)
    group = joint.groups[int(rng.integers(len(joint.groups)))]
    for level in group.levels:
        beside = {**plan, group.name: level}
        assert abs(near.evaluate(beside)[1] - joint.evaluate(beside)[1]) < 1.5


@settings(deadline=None, max_examples=30)
@given(joint_problems())
def test_conversions_make_no_hubs_and_the_budget_is_kept_exactly(
    case: tuple[JointProblem, np.random.Generator],
) -> None:
    joint, rng = case
    small = with_conversions(joint, rng)
    assert small.hubs == joint.hubs
    plan = some_plan(small, rng)
    assert small.near(plan).evaluate(plan)[1] == pytest.approx(small.evaluate(plan)[1], abs=1e-9)
    # The budget is that of some plan, so there is one, and the fastest is known.
    budget = some_budget(small, rng)
    solution = solve_joint(small, budget)
    lost, ms = small.evaluate(solution.levels)
    assert ms <= time_limit_ms(budget)
    assert lost == pytest.approx(solution.distortion)
    assert math.isfinite(solution.gap)


def test_a_budget_below_every_plan_names_the_fastest() -> None:
    rng = np.random.default_rng(3)
    pairwise = random_problem(rng, "chain", [3, 3, 3, 3], whole_numbers=False)
    joint = JointProblem(pairwise, (random_part(rng, pairwise),))
    fastest = min(ms for _, _, ms in every_plan(joint))
    with pytest.raises(InfeasibleTarget, match="none takes less") as raised:
        solve_joint(joint, 0.9 * fastest - 1)
    assert raised.value.fastest_ms is not None
    assert 0.9 * fastest - 1 < raised.value.fastest_ms <= fastest + 1e-9


def test_without_joint_parts_it_is_the_pairwise_search() -> None:
    problem = random_problem(np.random.default_rng(0), "tree", [3, 3, 3], whole_numbers=True)
    joint = JointProblem(problem)
    budget = some_budget(joint, np.random.default_rng(0))
    assert joint.hubs == ()
    expected = solve(problem, budget, gap=1e-9)
    assert solve_joint(joint, budget, gap=1e-9).distortion == pytest.approx(expected.distortion)

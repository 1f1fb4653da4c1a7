"""The problem's tables: what they accept, what they add up to, how they are stored."""

import math

import numpy as np
import pytest
from allocations import cases, every_plan
from hypothesis import given, settings

from edgeprune.errors import EdgepruneError
from edgeprune.search.problem import Group, Pair, Problem, time_limit_ms


def small() -> Problem:
    return Problem(
        (
            Group("a", (0, 8), [2.0, 0.0], [0.5, 1.0]),
            Group("b", (1, 2, 4), [math.inf, 1.0, 0.0], [0.1, 0.2, 0.4]),
        ),
        (Pair("b", "a", [[0.0, 0.1], [0.2, 0.3], [0.4, 0.5]]),),
        base_ms=10.0,
    )


def test_evaluate_adds_base_groups_and_pairs() -> None:
    assert small().evaluate({"a": 8, "b": 2}) == (1.0, pytest.approx(10 + 1.0 + 0.2 + 0.3))
    assert small().evaluate({"b": 1, "a": 0}) == (math.inf, pytest.approx(10 + 0.5 + 0.1))


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_json_round_trip_is_exact(case: tuple[Problem, float]) -> None:
    problem, _ = case
    again = Problem.from_json(problem.to_json())
    assert every_plan(again) == every_plan(problem)
    assert [g.levels for g in again.groups] == [g.levels for g in problem.groups]
    assert "Infinity" not in problem.to_json()


def test_times_of_one_group_follow_the_others() -> None:
    problem = small()
    choice = problem.choice({"a": 8, "b": 4})
    base_ms = problem.evaluate_choice(choice)[1]
    for group in (0, 1):
        times = problem.times_of(choice, group)
        for level in range(len(times)):
            moved = choice.copy()
            moved[group] = level
            change_ms = problem.evaluate_choice(moved)[1] - base_ms
            assert times[level] - times[choice[group]] == pytest.approx(change_ms)


def test_tables_cannot_be_changed_behind_the_problem() -> None:
    distortion = np.array([1.0, 2.0])
    group = Group("a", (0, 1), distortion, np.zeros(2))
    distortion[0] = 9.0
    assert group.distortion[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        group.distortion[0] = 9.0


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Group("a", (0, 0), [1.0, 2.0], [1.0, 2.0]), "lists a level twice"),
        (lambda: Group("a", (0, 1), [math.nan, 2.0], [1.0, 2.0]), "NaN"),
        (lambda: Group("a", (0, 1), [-math.inf, 2.0], [1.0, 2.0]), "-inf"),
        (lambda: Group("a", (0, 1), [math.inf, math.inf], [1.0, 2.0]), "no alternative"),
        (lambda: Group("a", (), [], []), "no alternative"),
        (lambda: Group("a", (0, 1), [0.0, 2.0], [math.inf, 2.0]), "not finite"),
        (lambda: Group("a", (0, 1), [0.0], [1.0, 2.0]), "has shape"),
        (lambda: Pair("a", "a", [[0.0]]), "with itself"),
        (lambda: Pair("a", "b", [[math.nan]]), "not finite"),
        (lambda: Pair("a", "b", [0.0]), "two dimensions"),
        (lambda: Problem(small().groups, (Pair("a", "b", [[0.0]]),)), "of shape"),
        (lambda: Problem(small().groups, (Pair("a", "c", [[0.0]]),)), "no group 'c'"),
        (lambda: Problem(small().groups * 2), "same name"),
        (lambda: Problem(small().groups, base_ms=math.nan), "base time"),
        (lambda: small().evaluate({"a": 0}), "missing=\\['b'\\]"),
        (lambda: small().evaluate({"a": 0, "b": 1, "c": 1}), "unknown=\\['c'\\]"),
        (lambda: small().evaluate({"a": 0, "b": 3}), "level 3"),
        (lambda: time_limit_ms(math.nan), "must be finite"),
    ],
)
def test_broken_input_is_named(build: object, words: str) -> None:
    with pytest.raises(EdgepruneError, match=words):
        build()  # type: ignore[operator]

"""The latency model: sums, corrected totals and their inverse, fastest plan, JSON."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import TableError
from edgeprune.latency.axis import Axis
from edgeprune.latency.model import FORMAT, Joint, LatencyModel


def _random_model(seed: int) -> LatencyModel:
    random = np.random.default_rng(seed)
    levels = {"a": (0, 4, 8), "b": (0, 8, 16), "c": (2, 4)}
    unary = {n: {v: float(random.uniform(0, 1)) for v in values} for n, values in levels.items()}
    pairs = {
        ("a", "b"): {
            (i, j): float(random.uniform(0, 0.2) * (i > 0) * (j > 0))
            for i in levels["a"]
            for j in levels["b"]
        }
    }
    joint = Joint(
        (Axis(0, (("a", 1), ("b", 1))), Axis(0, (("c", 2),))),
        {
            (i + j, 2 * k): 0.01 * (i + j) * k
            for i in levels["a"]
            for j in levels["b"]
            for k in levels["c"]
        },
    )
    return LatencyModel(
        base_ms=0.5,
        unary_ms=unary,
        pair_ms=pairs,
        full={"a": 8, "b": 16, "c": 4},
        correction=(
            float(random.uniform(-0.1, 0.2)),
            float(random.uniform(0.8, 1.2)),
            float(random.uniform(-0.01, 0.05)),
        ),
        joint=(joint,),
        approximation=(0.1, {"a": dict.fromkeys(levels["a"], 0.05)}, {}),
        figures={"variants": 3},
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_budget_is_the_inverse_of_the_correction(seed: int) -> None:
    model = _random_model(seed)
    for levels in ({}, {"a": 0}, {"a": 4, "b": 8, "c": 2}):
        budget = model.sum_budget(model.total_ms(levels))
        assert budget == pytest.approx(model.exact_sum_ms(levels), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_json_keeps_every_figure(seed: int) -> None:
    model = _random_model(seed)
    again = LatencyModel.from_json(model.to_json())
    assert again == model
    assert again.fastest_ms == model.fastest_ms


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_fastest_plan_is_hardly_slower_than_the_best_of_all(seed: int) -> None:
    model = _random_model(seed)
    plans = itertools.product((0, 4, 8), (0, 8, 16), (2, 4))
    best = min(model.total_ms(dict(zip("abc", plan, strict=True))) for plan in plans)
    assert best <= model.fastest_ms <= best * 1.15
    assert model.fastest_ms <= model.dense_ms


def test_joint_parts_enter_the_total_exactly() -> None:
    model = _random_model(0)
    levels = {"a": 4, "b": 8, "c": 2}
    difference = model.exact_sum_ms(levels) - model.sum_ms(levels)
    assert difference == pytest.approx(0.01 * 12 * 2 - 0.1 - 0.05)


def test_the_prunable_share_leaves_out_what_no_structure_decides() -> None:
    model = _random_model(0)
    # The approximation's constant stands for a joint part, which structures do decide.
    never = model.base_ms - model.approximation[0]
    assert model.prunable_share == pytest.approx(1 - never / model.exact_sum_ms(model.full))


def test_unknown_level_is_named() -> None:
    with pytest.raises(TableError, match="5"):
        _random_model(0).total_ms({"a": 5})


def test_another_format_is_refused() -> None:
    text = _random_model(0).to_json().replace(f'"format": {FORMAT}', '"format": 7')
    with pytest.raises(TableError, match="format 7"):
        LatencyModel.from_json(text)

"""Intervals that hold what they promise, ratios in which shared disturbances cancel."""

import numpy as np
import pytest

from edgeprune.latency.statistics import latency_stats, ratio_interval


def _rounds(random: np.random.Generator, count: int, middle: float) -> list[list[float]]:
    """Rounds that share a disturbance, as real ones do."""
    return [
        list(middle * (1 + 0.03 * random.standard_normal()) + random.exponential(0.02, 20))
        for _ in range(count)
    ]


def test_figures_are_those_of_the_samples() -> None:
    stats = latency_stats([[1.0, 2.0, 3.0], [4.0, 5.0]])
    assert stats.median == 3.0
    assert stats.p90 == pytest.approx(4.6)
    assert stats.samples == 5
    assert stats.rounds == 2
    assert stats.ci95[0] <= stats.median <= stats.ci95[1]
    assert stats.to_json()["ci95"] == list(stats.ci95)


def test_no_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="no samples"):
        latency_stats([[], []])


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    truth = latency_stats(_rounds(random, 4000, 2.0)).median
    hits = 0
    for _ in range(60):
        low, high = latency_stats(_rounds(random, 20, 2.0)).ci95
        hits += low <= truth <= high
    assert hits >= 50


def test_what_slows_whole_rounds_down_cancels_in_a_ratio() -> None:
    random = np.random.default_rng(2)
    slow = random.uniform(1, 3, 30)
    first = [[2.0 * s * random.normal(1, 0.01) for _ in range(15)] for s in slow]
    second = [[1.0 * s * random.normal(1, 0.01) for _ in range(15)] for s in slow]
    ratio, low, high = ratio_interval(first, second)
    assert low <= 2.0 <= high
    assert high - low < 0.05
    assert ratio == pytest.approx(2.0, rel=0.02)
    assert latency_stats(first).ci95[1] - latency_stats(first).ci95[0] > 0.2


def test_a_model_against_itself_is_rarely_told_apart() -> None:
    random = np.random.default_rng(3)
    false = 0
    for _ in range(60):
        _, low, high = ratio_interval(_rounds(random, 16, 1.0), _rounds(random, 16, 1.0))
        false += low > 1.01 or high < 0.99
    assert false <= 6

"""Sums of single and pairwise terms: exact where they can be, close where they cannot."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.latency.projection import Terms, project


def _value(terms: Terms, levels: dict[str, int]) -> float:
    unary = sum(times[levels[name]] for name, times in terms.unary.items())
    pairs = sum(cells[levels[a], levels[b]] for (a, b), cells in terms.pairs.items())
    return terms.constant + unary + pairs


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(0, 10**6))
def test_whatever_is_pairwise_is_written_exactly(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    offered = {f"s{i}": tuple(range(0, 8 * int(random.integers(2, 5)), 8)) for i in range(count)}
    line = random.uniform(0, 2, count)
    twice = random.uniform(0, 0.1, (count, count))

    def time(points: np.ndarray) -> np.ndarray:
        return 3.0 + points @ line + np.einsum("ni,ij,nj->n", points, twice, points)

    terms = project(time, offered)
    scale = float(time(np.array([[levels[-1] for levels in offered.values()]]))[0])
    for _ in range(10):
        levels = {name: int(random.choice(values)) for name, values in offered.items()}
        expected = float(time(np.array([list(levels.values())]))[0])
        assert abs(_value(terms, levels) - expected) < 1e-3 * scale
    assert terms.error < 1e-3 * scale


def test_no_structure_is_a_constant() -> None:
    assert project(lambda points: np.full(len(points), 7.0), {}).constant == 7.0


def test_many_structures_fall_back_to_products() -> None:
    offered = {f"s{i}": tuple(range(0, 65, 8)) for i in range(9)}
    terms = project(lambda points: 1 + points.sum(axis=1) * points[:, 0] / 64, offered)
    levels = dict.fromkeys(offered, 32)
    assert abs(_value(terms, levels) / (1 + 9 * 32 * 32 / 64) - 1) < 0.05


def test_error_says_what_a_threefold_term_leaves_over() -> None:
    offered = dict.fromkeys("abc", (0, 1))
    assert project(lambda points: points.prod(axis=1) * 8.0, offered).error > 0.5

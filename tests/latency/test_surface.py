"""Surfaces keep measured steps, fill in between on the right form, and resist disturbance."""

import numpy as np

from edgeprune.latency.surface import fit_surface


def _stairs(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Time of a layer that works in blocks of 16, in microseconds."""
    return 3.0 + 0.02 * np.ceil(p / 16) * 16 * np.ceil(q / 16) + 0.3 * (q % 16 != 0)


def _noise(count: int, relative: float = 0.02) -> np.ndarray:
    return np.full(count, relative)


def test_jump_and_line_is_found_from_few_levels() -> None:
    measured = np.array([32, 256, 512, 1024, 1536]).reshape(-1, 1)
    us = 26 + 0.95 * measured[:, 0]
    surface = fit_surface(np.vstack([measured, [[0]]]), np.append(us, 0.0), _noise(6))
    wanted = np.arange(32, 1537, 32).reshape(-1, 1)
    predicted = surface.predict(wanted)
    assert np.abs(predicted / (26 + 0.95 * wanted[:, 0]) - 1).max() < 0.02
    assert surface.predict(np.array([[0]]))[0] == 0


def test_a_measured_step_is_not_smoothed_away() -> None:
    # A level that is slower than the next higher one, as odd multiples of 8 often are.
    steps = {8: 7.2, 16: 8.2, 24: 13.0, 32: 11.3, 40: 16.7, 48: 17.7, 56: 21.0, 64: 20.6}
    random = np.random.default_rng(0)
    sizes = np.repeat(list(steps), 12).reshape(-1, 1)
    us = np.array([steps[int(s)] for s in sizes[:, 0]]) * random.normal(1, 0.02, len(sizes))
    surface = fit_surface(sizes, us, _noise(len(us)))
    for size, expected in steps.items():
        assert abs(surface.predict(np.array([[size]]))[0] / expected - 1) < 0.03


def test_two_sizes_from_a_third_of_the_cells() -> None:
    random = np.random.default_rng(0)
    grid = np.array([(p, q) for p in range(8, 65, 8) for q in range(8, 65, 8)])
    truth = _stairs(grid[:, 0], grid[:, 1])
    chosen = random.permutation(len(grid))[:22]
    samples = np.repeat(grid[chosen], 3, axis=0)
    us = np.repeat(truth[chosen], 3) * random.normal(1, 0.01, len(samples))
    errors = np.abs(fit_surface(samples, us, _noise(len(us))).predict(grid) / truth - 1)
    assert np.median(errors) < 0.03
    assert errors.max() < 0.2


def test_three_sizes_multiply() -> None:
    # Experts, their neurons and the width: a product of any two of them is no stand-in.
    random = np.random.default_rng(0)
    grid = np.array([(e, n, w) for e in range(2, 9) for n in range(48, 385, 48) for w in (96, 192)])
    truth = 20.0 + 4.0 * grid[:, 0] + 0.002 * grid.prod(axis=1)
    chosen = random.permutation(len(grid))[:24]
    us = truth[chosen] * random.normal(1, 0.01, len(chosen))
    errors = np.abs(fit_surface(grid[chosen], us, _noise(len(us))).predict(grid) / truth - 1)
    assert np.median(errors) < 0.02
    assert errors.max() < 0.1


def test_of_many_sizes_not_every_product_is_tried() -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(1, 9, (40, 26)) * 8  # as of all that a dense block concatenates
    us = 5 + 0.1 * sizes.sum(axis=1)
    predicted = fit_surface(sizes, us, _noise(len(us))).predict(sizes)
    assert np.median(np.abs(predicted / us - 1)) < 0.03


def test_single_long_disturbances_do_not_count() -> None:
    random = np.random.default_rng(0)
    sizes = np.repeat(np.arange(32, 1025, 32), 2).reshape(-1, 1)
    us = (40 + 0.5 * sizes[:, 0]) * random.normal(1, 0.01, len(sizes))
    us[random.permutation(len(us))[:8]] *= 4
    wanted = np.arange(64, 1025, 64).reshape(-1, 1)
    predicted = fit_surface(sizes, us, _noise(len(us))).predict(wanted)
    assert np.median(np.abs(predicted / (40 + 0.5 * wanted[:, 0]) - 1)) < 0.03


def test_a_part_without_sizes_is_a_constant() -> None:
    surface = fit_surface(np.zeros((5, 0), int), np.array([4.0, 4.1, 3.9, 4.0, 40.0]), _noise(5))
    assert abs(surface.predict(np.zeros((1, 0), int))[0] - 4.0) < 0.2


def test_emptied_in_a_way_never_measured_is_gone() -> None:
    grid = np.array([(p, q) for p in (8, 16) for q in (8, 16)])
    surface = fit_surface(grid, _stairs(grid[:, 0], grid[:, 1]), _noise(4))
    assert surface.predict(np.array([[0, 8], [8, 0], [0, 0]])).tolist() == [0, 0, 0]

"""Second-order removal against plain least squares."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.compression.second_order import Consumer, compensate, removal_order


def problem(seed: int, units: int, width: int, outputs: int = 5) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    columns = units * width
    mixing = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    inputs = torch.randn(40 * columns, columns, generator=generator, dtype=torch.float64) @ mixing
    weight = torch.randn(outputs, columns, generator=generator, dtype=torch.float64)
    return inputs, weight, inputs.T @ inputs / len(inputs)


def loss_without(inputs: torch.Tensor, weight: torch.Tensor, gone: list[int]) -> float:
    """What the best remaining weights still miss, by a solver that knows no Gram matrix."""
    kept = [c for c in range(weight.shape[1]) if c not in gone]
    target = inputs @ weight.T
    solved = torch.linalg.lstsq(inputs[:, kept], target).solution
    return float((target - inputs[:, kept] @ solved).square().mean(0).sum())


@given(seed=st.integers(0, 10_000), units=st.integers(2, 6), width=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_compensation_is_the_least_squares_solution(seed: int, units: int, width: int) -> None:
    inputs, weight, gram = problem(seed, units, width)
    kept = np.ones(units * width, dtype=bool)
    kept[: width * (units // 2)] = False
    result = compensate(weight, gram, kept, damping=1e-10)
    expected = torch.linalg.lstsq(inputs[:, kept], inputs @ weight.T).solution.T
    torch.testing.assert_close(result[:, kept], expected, rtol=1e-4, atol=1e-6)
    assert not result[:, ~kept].any()


@given(seed=st.integers(0, 10_000), units=st.integers(2, 6), width=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_each_step_removes_the_cheapest_unit(seed: int, units: int, width: int) -> None:
    inputs, weight, gram = problem(seed, units, width)
    unit = np.repeat(np.arange(units), width).astype(np.int32)
    order = removal_order([Consumer(weight, gram, unit)], units, damping=1e-10)
    gone: list[int] = []
    for chosen in order[:-1]:
        left = [u for u in range(units) if u not in {unit[c] for c in gone}]
        losses = {
            u: loss_without(inputs, weight, [*gone, *np.flatnonzero(unit == u)]) for u in left
        }
        assert losses[chosen] <= min(losses.values()) * 1.01 + 1e-9
        gone.extend(np.flatnonzero(unit == chosen))


def test_a_unit_that_others_repeat_goes_first() -> None:
    inputs = torch.randn(500, 4, dtype=torch.float64)
    inputs[:, 2] = inputs[:, 0] + 1e-4 * torch.randn(500, dtype=torch.float64)
    weight = torch.ones(3, 4, dtype=torch.float64)
    weight[:, 0] = weight[:, 2] = 10
    gram = inputs.T @ inputs / 500
    order = removal_order([Consumer(weight, gram, np.arange(4, dtype=np.int32))], 4, 1e-8)
    assert order[0] in (0, 2)


def test_several_consumers_have_an_equal_say() -> None:
    gram = torch.eye(3, dtype=torch.float64)
    unit = np.arange(3, dtype=np.int32)
    quiet = Consumer(torch.tensor([[1e-3, 1.0, 1.0]]), gram, unit)
    loud = Consumer(torch.tensor([[10.0, 500.0, 10.0]]), gram, unit)
    order = removal_order([quiet, loud], 3)
    assert order[0] == 0
    assert order[-1] == 1


@pytest.mark.parametrize("units", [1, 7, 300])
def test_every_unit_is_ranked_once(units: int) -> None:
    gram = torch.eye(units, dtype=torch.float64)
    weight = torch.randn(4, units)
    order = removal_order([Consumer(weight, gram, np.arange(units, dtype=np.int32))], units)
    assert sorted(order.tolist()) == list(range(units))

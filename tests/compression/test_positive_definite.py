"""Inputs that depend on one another, hardly vary, or differ by orders of magnitude."""

from itertools import product

import pytest
import torch
from torch import Tensor

from edgeprune.compression.block_sparse import block_sparse, block_sparse_levels
from edgeprune.compression.least_squares import input_moments
from edgeprune.compression.positive_definite import cholesky


def dependent_gram(inputs: int, rank: int, largest: float) -> Tensor:
    """Of rank ``rank``, one direction that much stronger than the others."""
    random = torch.Generator().manual_seed(inputs)
    x = torch.randn(4 * inputs, rank, generator=random, dtype=torch.float64)
    x[:, 0] *= largest
    rows = x @ torch.randn(rank, inputs, generator=random, dtype=torch.float64)
    return rows.T @ rows / len(rows)


def indefinite_by_rounding(inputs: int) -> Tensor:
    """What a difference of larger numbers leaves: noise on both sides of zero."""
    random = torch.Generator().manual_seed(inputs)
    noise = torch.randn(inputs, inputs, generator=random, dtype=torch.float64)
    return 1e-6 * torch.eye(inputs, dtype=torch.float64) + 1e-7 * (noise + noise.T)


@pytest.mark.parametrize(
    ("dtype", "gram"),
    [
        *product((torch.float32, torch.float64), (dependent_gram(64, 3, 1e4),)),
        *product((torch.float32, torch.float64), (indefinite_by_rounding(48),)),
        (torch.float64, torch.zeros(8, 8, dtype=torch.float64)),
    ],
)
def test_any_gram_matrix_has_factors_near_it(dtype: torch.dtype, gram: Tensor) -> None:
    factor = cholesky(gram.to(dtype)).double()
    assert torch.equal(factor, factor.tril())
    near = (factor @ factor.T - gram).abs().max()
    negative = -torch.linalg.eigvalsh(gram)[0]
    assert near <= 1e-12 + 1e-4 * gram.diagonal().mean() + 20 * negative.clamp_min(0)


def test_each_of_several_gets_the_ridge_it_needs() -> None:
    good = dependent_gram(16, 16, 1.0)
    factors = cholesky(torch.stack([good, indefinite_by_rounding(16), torch.full_like(good, 1)]))
    assert torch.equal(factors[0], torch.linalg.cholesky(good))
    assert factors.isfinite().all()


def test_what_is_not_finite_says_so() -> None:
    good = dependent_gram(4, 4, 1.0)
    factors = cholesky(torch.stack([good, torch.full_like(good, torch.nan)]))
    assert factors[0].isfinite().all()
    assert factors[1].isnan().all()


@pytest.mark.parametrize("block", [(4, 1), (16, 4)])
@pytest.mark.parametrize("distance", [0.0, 1.0, 30.0])
def test_inputs_that_hardly_vary_can_be_thinned(block: tuple[int, int], distance: float) -> None:
    """As of a recurrent layer near its fixed point, where the variance is lost in float32."""
    random = torch.Generator().manual_seed(0)
    varying = torch.randn(40, 64, 32, generator=random) * torch.logspace(-6, -4, 32)
    covariance, mean = input_moments(x + distance for x in varying)
    x = (varying + distance).double().flatten(0, 1)
    exact = (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)
    assert torch.allclose(mean, x.mean(0), atol=1e-6)
    assert (covariance - exact).abs().max() <= 1e-4 * exact.diagonal().max()
    matrix = torch.randn(16, 32, generator=random)
    half = block_sparse(matrix, covariance, block, 0.5)
    (stepwise,) = block_sparse_levels(matrix, covariance, block, [0.5])
    for found in (half, stepwise):
        assert found.isfinite().all()
        assert int((found != 0).sum()) == matrix.numel() // 2


@pytest.mark.parametrize("seed", range(3))
def test_thinning_stands_inputs_of_which_few_matter(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    matrix = torch.randn(32, 512, generator=random)
    gram = dependent_gram(512, 2, 1e3)
    assert block_sparse(matrix, gram, (16, 4), 0.5).isfinite().all()

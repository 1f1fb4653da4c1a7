"""Block-sparse weights: exact counts, least squares on what stays, and the blocks that matter."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgeprune.compression.block_sparse import block_sparse_levels

DAMPING = 1e-3


def random_gram(inputs: int, seed: int, rank: int = 400) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inputs, inputs, generator=random, dtype=torch.float64)
    x = torch.randn(rank, inputs, generator=random, dtype=torch.float64) @ mixing
    return x.T @ x / rank


def relative_error(matrix: Tensor, sparse: Tensor, gram: Tensor) -> float:
    """The squared error of a layer's output over its square, from the Gram matrix of its input."""
    change = (sparse - matrix).double()
    whole = matrix.double()
    lost = ((change @ gram) * change).sum()
    return float(lost / ((whole @ gram) * whole).sum().clamp_min(1e-30))


def alive_blocks(weight: Tensor, block: tuple[int, int]) -> Tensor:
    rows, depth = block
    return weight.reshape(len(weight) // rows, rows, -1, depth).abs().sum((1, 3)) > 0


@settings(max_examples=30, deadline=None)
@given(
    block=st.sampled_from([(1, 1), (4, 1), (2, 1), (2, 4)]),
    groups=st.integers(1, 6),
    width=st.integers(1, 8),
    seed=st.integers(0, 10_000),
)
def test_what_stays_is_the_least_squares_solution(
    block: tuple[int, int], groups: int, width: int, seed: int
) -> None:
    outputs, inputs = groups * block[0], width * 4
    matrix = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    gram = random_gram(inputs, seed)
    sparsities = (0.0, 0.3, 0.5, 0.9, 1.0)
    ridge = DAMPING * gram.diagonal().mean() * torch.eye(inputs, dtype=torch.float64)
    before, error = torch.ones(groups, inputs // block[1], dtype=torch.bool), 0.0
    levels = list(block_sparse_levels(matrix, gram, block, sparsities, DAMPING))
    for sparsity, weight in zip(sparsities, levels, strict=True):
        alive = alive_blocks(weight, block)
        assert alive.numel() - int(alive.sum()) == round(sparsity * alive.numel())
        assert not (alive & ~before).any(), "a block came back"
        slope = (weight - matrix).double() @ (gram + ridge)
        kept = alive.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
        scale = (matrix.double() @ (gram + ridge)).abs().max()
        assert float((slope * kept).abs().max()) <= 1e-4 * float(scale)
        found = relative_error(matrix, weight, gram + ridge)
        assert found >= error - 1e-6
        before, error = alive, found
    torch.testing.assert_close(levels[0], matrix)
    assert not levels[-1].any()


def test_with_uncorrelated_inputs_the_largest_products_stay() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(8, 20)
    power = torch.rand(20, dtype=torch.float64) + 0.1
    (weight,) = block_sparse_levels(matrix, torch.diag(power), (4, 1), [0.7], 0.0)
    importance = (matrix.double().square() * power).reshape(2, 4, 20).sum(1)
    threshold = importance.flatten().sort().values[28]
    torch.testing.assert_close(alive_blocks(weight, (4, 1)), importance >= threshold)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_near_the_best_of_all_masks(seed: int) -> None:
    matrix = torch.randn(2, 8, generator=torch.Generator().manual_seed(seed))
    gram = random_gram(8, seed)
    (weight,) = block_sparse_levels(matrix, gram, (2, 1), [0.5], 1e-6)
    errors = []
    for kept in itertools.combinations(range(8), 4):
        index = torch.tensor(kept)
        best = torch.zeros_like(matrix)
        target = matrix.double() @ gram[:, index]
        best[:, index] = torch.linalg.solve(gram[index][:, index], target.T).T.float()
        errors.append(relative_error(matrix, best, gram))
    rank = sum(error < relative_error(matrix, weight, gram) - 1e-6 for error in errors)
    assert rank <= 7, f"{rank} of {len(errors)} masks are better"


def test_it_loses_less_than_the_same_mask_without_compensation() -> None:
    matrix = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    gram = random_gram(64, 0)
    for weight in block_sparse_levels(matrix, gram, (4, 1), [0.5, 0.8]):
        masked = matrix * (weight != 0)
        assert relative_error(matrix, weight, gram) < 0.9 * relative_error(matrix, masked, gram)

"""Gram matrices made safe to factorise: inputs that depend on one another leave none of full rank.

A ridge is part of the method; what rounding needs beyond it is found by trying, as its bound
grows with the width and with how unequal the inputs are.
"""

import torch
from torch import Tensor

# Of the mean diagonal, beginning where float32 rounds.
_FIRST, _STEP = 1e-6, 10.0


def damped(gram: Tensor, damping: float) -> Tensor:
    """``gram`` plus ``damping`` times its mean diagonal on the diagonal, float64."""
    mean = gram.diagonal().mean().clamp_min(1e-12)
    return gram.double() + damping * mean * torch.eye(len(gram), dtype=torch.float64)


def cholesky(grams: Tensor) -> Tensor:
    """Lower Cholesky factors of symmetric matrices (..., n, n), each with the ridge it needs.

    A matrix that is positive definite is factorised as it stands. One that is not finite has a
    factor that is not either, so that a loss computed from it says so.
    """
    factors: Tensor
    factors, failed = torch.linalg.cholesky_ex(grams)
    if not bool(failed.any()):
        return factors
    finite = grams.isfinite().all(-1).all(-1)
    ridge = _FIRST * grams.diagonal(dim1=-2, dim2=-1).abs().mean(-1).clamp_min(1e-12)
    added = torch.zeros_like(ridge)
    while bool((lacking := (failed > 0) & finite).any()):
        added = torch.where(lacking, ridge, added)
        on_diagonal = added[..., None].expand(grams.shape[:-1]).diag_embed()
        factors, failed = torch.linalg.cholesky_ex(grams + on_diagonal)
        ridge = ridge * _STEP
    return torch.where(finite[..., None, None], factors, torch.nan)

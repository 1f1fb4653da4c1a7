"""Block-sparse weights by second-order removal, every sparsity from one pass.

Blocks of a weight (some outputs by some adjacent inputs) leave by the Optimal Brain Surgeon's loss
on the Gram matrix of the layer's input, ``tr(W_b (H⁻¹_bb)⁻¹ W_bᵀ)``, as in OBC (Frantar and
Alistarh, 2022, section 4). Outputs of one block share their inputs, so each group of outputs has an
inverse of its own; instead of one removal at a time, some share of what is left goes at once, and
what stays is then solved for exactly.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from edgeprune.compression.positive_definite import cholesky, damped
from edgeprune.graph.blocks import largest_blocks

# Of what is left, at once. Before the first removal all groups share one inverse, so that a larger
# share costs nothing; it is bounded by what blocks that resemble one another can stand.
_FIRST_SHARE, _SHARE = 0.5, 0.4
_CELLS_AT_ONCE = 1 << 25


def block_sparse_levels(
    matrix: Tensor,
    gram: Tensor,
    block: tuple[int, int],
    sparsities: Sequence[float],
    damping: float = 1e-3,
) -> Iterator[Tensor]:
    """The best weights found at each sparsity.

    Args:
        matrix: float (outputs, inputs).
        gram: float64 (inputs, inputs), the mean Gram matrix of the layer's input.
        block: Outputs by adjacent inputs; they divide the matrix's.
        sparsities: Ascending shares of the blocks that are zero.
        damping: Relative ridge of the Gram matrix.

    Yields:
        (outputs, inputs) of the matrix's dtype for each sparsity: zeros in the blocks that went,
        and elsewhere what best reproduces the whole product with the blocks that stay.
    """
    groups = _Groups(matrix, damped(gram, damping), block)
    for sparsity in sparsities:
        groups.remove_down_to(groups.blocks - round(sparsity * groups.blocks))
        yield groups.weights().to(matrix.dtype)


def block_sparse(
    matrix: Tensor,
    gram: Tensor,
    block: tuple[int, int],
    sparsity: float,
    damping: float = 1e-3,
) -> Tensor:
    """Like :func:`block_sparse_levels` for one sparsity, all blocks chosen at once, in float32.

    What goes is a little worse chosen and some ten times sooner found, which is what a search over
    many plans wants.
    """
    groups = _Groups(matrix, damped(gram, damping).float(), block)
    alive = largest_blocks(groups.losses, sparsity)
    return _solve_at_once(groups, alive).flatten(0, 1).to(matrix.dtype)


def _solve_at_once(groups: "_Groups", alive: Tensor) -> Tensor:
    """Least squares of the whole product with the blocks that stay, (groups, rows, inputs)."""
    columns = alive.repeat_interleave(groups.depth, 1)
    most = int(columns.sum(1).max())
    solved = torch.zeros_like(groups.target)
    if not most:
        return solved
    # The columns of every group, filled up with one behind the last.
    index = columns.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    filled = torch.arange(most) < columns.sum(1, keepdim=True)
    scale = float(groups.gram.diagonal().mean())
    at_once = max(1, _CELLS_AT_ONCE // (most * most))
    for part in torch.split(torch.arange(len(alive)), at_once):
        chosen, valid = index[part], filled[part]
        both = valid[:, :, None] & valid[:, None, :]
        systems = groups.gram[chosen[:, :, None], chosen[:, None, :]].masked_fill(~both, 0)
        systems.diagonal(dim1=1, dim2=2).masked_fill_(~valid, scale)
        expanded = chosen[:, None, :].expand(-1, groups.target.shape[1], -1)
        wanted = groups.product[part].gather(2, expanded).masked_fill(~valid[:, None, :], 0)
        factor = cholesky(systems)
        found = torch.cholesky_solve(wanted.transpose(1, 2), factor).transpose(1, 2)
        solved[part] = solved[part].scatter_add(2, expanded, found.masked_fill(~valid[:, None], 0))
    return solved


class _Groups:
    """Groups of outputs that share their inputs, as blocks leave."""

    def __init__(self, matrix: Tensor, gram: Tensor, block: tuple[int, int]) -> None:
        rows, self.depth = block
        self.gram = gram
        self.target = matrix.to(gram.dtype).reshape(-1, rows, matrix.shape[1])
        self.alive = torch.ones(len(self.target), matrix.shape[1] // self.depth, dtype=torch.bool)
        self.blocks = self.alive.numel()
        self.product = self.target @ gram
        self.solved = self.target.clone()
        # Of letting each block go next, (groups, blocks); at first all groups share one inverse.
        self.losses = self._losses(self._by_block(self.target).transpose(1, 2), cholesky(gram))

    def remove_down_to(self, count: int) -> None:
        """Let blocks go until that many are left."""
        while (left := int(self.alive.sum())) > count:
            share = _FIRST_SHARE if left == self.blocks else _SHARE
            leaving = min(left - count, max(1, int(share * left)))
            chosen = torch.topk(self.losses.flatten(), leaving, largest=False).indices
            self.alive.view(-1)[chosen] = False
            self._solve()

    def weights(self) -> Tensor:
        """(outputs, inputs)."""
        return self.solved.flatten(0, 1)

    def _losses(self, weights: Tensor, factor: Tensor) -> Tensor:
        """Of weights (..., blocks, rows, depth) with the Cholesky factor of their inputs."""
        diagonal = self._diagonal_blocks(torch.cholesky_inverse(factor))
        if self.depth == 1:
            return torch.div(weights.square().sum((-1, -2)), diagonal[:, 0, 0])
        turned = weights.transpose(-1, -2)
        solved: Tensor = torch.linalg.solve(diagonal, turned)
        return (solved * turned).sum((-1, -2))

    def _by_block(self, weights: Tensor) -> Tensor:
        """(..., rows, columns) as (..., rows, blocks, depth)."""
        return weights.reshape(*weights.shape[:-1], -1, self.depth)

    def _diagonal_blocks(self, inverse: Tensor) -> Tensor:
        """(blocks, depth, depth)."""
        count = len(inverse) // self.depth
        blocks = inverse.reshape(count, self.depth, count, self.depth)
        return blocks[torch.arange(count), :, torch.arange(count)]

    def _columns(self, alive: Tensor) -> Tensor:
        first = alive.nonzero().flatten() * self.depth
        return (first[:, None] + torch.arange(self.depth)).flatten()

    def _solve(self) -> None:
        """Least squares of the whole product with what stays; what letting more go would cost."""
        self.solved = torch.zeros_like(self.target)
        self.losses = torch.full_like(self.losses, torch.inf)
        for group, alive in enumerate(self.alive):
            if alive.any():
                index = self._columns(alive)
                factor = cholesky(self.gram[index][:, index])
                solution = torch.cholesky_solve(self.product[group][:, index].T, factor).T
                self.solved[group][:, index] = solution
                weights = self._by_block(solution).transpose(0, 1)
                self.losses[group, alive] = self._losses(weights, factor)

"""Reductions, selections along a dimension and running sums."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from edgeprune.onnx_import.registry import Call, operator
from edgeprune.onnx_import.types import as_type

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _reduction(name: str, function: Reduction) -> None:
    @operator(name, host=(1,))
    def reduce(c: Call) -> Tensor:
        x = c.tensor(0)
        dims = _dims(c, x)
        if dims is None:
            return x
        return as_type(function(x, dims, bool(c.attribute("keepdims", 1))), x.dtype)


def _dims(c: Call, x: Tensor) -> list[int] | None:
    """Dimensions to reduce; None where nothing is to be done."""
    given = c.numbers(1, "axes") if c.has(1) else c.attribute("axes")
    if not given:
        return None if c.attribute("noop_with_empty_axes", 0) else list(range(x.dim()))
    return [int(axis) for axis in given]


def _of_numbers(x: Tensor) -> Tensor:
    """Means and norms of whole numbers are computed as floats."""
    return x if x.is_floating_point() else x.double()


def _product(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    for dim in sorted((d % max(x.dim(), 1) for d in dims), reverse=True):
        x = x.prod(dim, keepdim=keep)
    return x


def _largest(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    return x.any(dims, keep) if x.dtype == torch.bool else x.amax(dims, keep)


def _smallest(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    return x.all(dims, keep) if x.dtype == torch.bool else x.amin(dims, keep)


def _norm(order: float) -> Reduction:
    return lambda x, d, keep: torch.linalg.vector_norm(_of_numbers(x), order, d, keep)


_reduction("ReduceMean", lambda x, d, keep: _of_numbers(x).mean(d, keep))
_reduction("ReduceSum", lambda x, d, keep: x.sum(d, keep))
_reduction("ReduceProd", _product)
_reduction("ReduceMax", _largest)
_reduction("ReduceMin", _smallest)
_reduction("ReduceL1", _norm(1))
_reduction("ReduceL2", _norm(2))
_reduction("ReduceSumSquare", lambda x, d, keep: x.square().sum(d, keep))
_reduction("ReduceLogSum", lambda x, d, keep: _of_numbers(x).sum(d, keep).log())
_reduction("ReduceLogSumExp", lambda x, d, keep: torch.logsumexp(_of_numbers(x), d, keep))


@operator("ArgMax")
def arg_max(c: Call) -> Tensor:
    """Where the largest entry is."""
    return _arg(c, torch.argmax)


@operator("ArgMin")
def arg_min(c: Call) -> Tensor:
    """Where the smallest entry is."""
    return _arg(c, torch.argmin)


def _arg(c: Call, function: Any) -> Tensor:
    x, keep = c.tensor(0), bool(c.attribute("keepdims", 1))
    axis = c.attribute("axis", 0) % x.dim()
    if c.attribute("select_last_index", 0):
        last: Tensor = x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=keep)
        return last
    found: Tensor = function(x, axis, keepdim=keep)
    return found


@operator("TopK", host=(1,))
def top_k(c: Call) -> tuple[Tensor, Tensor]:
    """The largest or smallest entries and where they are."""
    x = c.tensor(0)
    count = c.number(1, "number of entries") if c.has(1) else c.attribute("k")
    largest, in_order = bool(c.attribute("largest", 1)), bool(c.attribute("sorted", 1))
    values, indices = torch.topk(x, count, c.attribute("axis", -1), largest, in_order)
    return values, indices


@operator("CumSum", host=(1,))
def running_sum(c: Call) -> Tensor:
    """Forward or backward, each entry's own number in it or not."""
    x = c.tensor(0)
    axis = int(c.number(1, "axis")) % x.dim()
    backward = bool(c.attribute("reverse", 0))
    value = x.flip(axis) if backward else x
    sums = value.cumsum(axis, dtype=x.dtype)
    if c.attribute("exclusive", 0):
        sums = sums - value
    return sums.flip(axis) if backward else sums

"""Reading entries by indices."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeprune.onnx_import.host import Host
from edgeprune.onnx_import.registry import Call, operator


@operator("Gather", weights=(0,))
def gather(c: Call) -> Tensor:
    """Slices along a dimension: an embedding where a stored table's rows are chosen by data."""
    x, index = c.tensor(0), c.value(1)
    axis = c.attribute("axis", 0) % x.dim()
    if isinstance(index, Host):
        return _by_numbers(x, index, axis)
    if axis == 0 and x.dim() == 2 and isinstance(x, torch.nn.Parameter):
        return F.embedding(index, x)
    return _by_tensor(x, index.long(), axis)


def _by_numbers(x: Tensor, index: Host, axis: int) -> Tensor:
    if index.array.size == 1 and index.array.ndim == 0:
        return x.select(axis, index.numbers()[0])
    if index.symbolic or not isinstance(x.shape[axis], int):
        return _by_tensor(x, index.as_tensor().long(), axis)
    if index.array.ndim != 1:
        return _by_tensor(x, index.as_tensor().long(), axis)
    places = torch.from_numpy(index.known().astype("int64") % x.shape[axis])
    return x.index_select(axis, index.as_tensor() if _is_plain(index) else places)


def _is_plain(index: Host) -> bool:
    """Whether a stored tensor can be used as it is."""
    stored = index.tensor is not None and index.tensor.dtype == torch.int64
    return stored and bool((index.known() >= 0).all())


def _by_tensor(x: Tensor, index: Tensor, axis: int) -> Tensor:
    return x[(slice(None),) * axis + (index,)]


@operator("GatherElements")
def gather_elements(c: Call) -> Tensor:
    """An entry for each index, along a dimension."""
    x, index = c.tensor(0), c.tensor(1).long()
    axis = c.attribute("axis", 0) % x.dim()
    return x.gather(axis, positive(index, x.shape[axis]))


def positive(index: Tensor, size: Any) -> Tensor:
    """Indices that count from the end, counted from the start."""
    return torch.where(index < 0, index + size, index)


@operator("GatherND")
def gather_nd(c: Call) -> Tensor:
    """Entries at tuples of indices, behind dimensions that both have in common."""
    x, index = c.tensor(0), c.tensor(1).long()
    shared = c.attribute("batch_dims", 0)
    places: list[Any] = []
    for dim in range(shared):
        shape = [-1 if d == dim else 1 for d in range(index.dim() - 1)]
        places.append(torch.arange(x.shape[dim]).reshape(shape))
    return x[(*places, *index.unbind(-1))]


@operator("OneHot", host=(1, 2))
def one_hot(c: Call) -> Tensor:
    """One of two values, at and beside each index."""
    index, depth = c.tensor(0).long(), int(c.number(1, "depth"))
    values = c.value(2)
    pair = values.as_tensor() if isinstance(values, Host) else values
    axis = c.attribute("axis", -1)
    place = positive(index, depth).unsqueeze(axis)
    axis = axis % place.dim()
    counts = torch.arange(depth).reshape([-1 if d == axis else 1 for d in range(place.dim())])
    return torch.where(place == counts, pair[1], pair[0])

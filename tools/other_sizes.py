"""Whether a pruned network, from one capture, is right at other batches and lengths, too.

What sizes a model allows is asked of the model itself: another batch is its inputs said again,
another length (of sequences, of images) its inputs cut short in all dimensions of that length.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from deployed import open_onnx_outcome
from exactness import compare, half_of_each
from isolated import Row
from masked_reference import flat, plain_copy, zero_removed
from torch import Tensor, fx, nn

from edgeprune.graph.capture import Captured, capture
from edgeprune.graph.network import analyse

Inputs = tuple[Tensor, ...]

_BATCH = 4
_SHORTEST = 4
_SHARES = ((1, 2), (3, 4), (7, 8))


def other_sizes_outcome(model: nn.Module, inputs: Sequence[Tensor], deploy: bool) -> Row:
    """The columns ``sizes``, what varied, and ``at_other_sizes``: equal, or why not.

    With ``deploy`` also ``open_onnx``: the same of one ONNX file with open sizes, in OpenVINO.
    """
    given = tuple(inputs)
    batched = _allowed(model, [_said_again(given)])
    shorter = _allowed(model, _cut_short(batched or given))
    allowed = [name for name, found in (("batch", batched), ("length", shorter)) if found]
    row: Row = {"sizes": " and ".join(allowed) or "none"}
    reason = "the model takes one size only"
    for other in (shorter, batched):
        if other is None:
            continue
        captured = capture(model, given, other)
        static = [note for note in captured.notes if "kept static" in note]
        if not static:
            once = tuple(x[: len(y)] if y.dim() else x for x, y in zip(other, given))
            tries = [given, *([batched, once] if batched else []), other]
            pruned, outcome = _compared(model, captured, tries)
            if deploy:
                row["open_onnx"] = open_onnx_outcome(pruned, tries)
            only_batch = "" if other is shorter or shorter is None else f"; with length {reason}"
            return row | {"at_other_sizes": f"{outcome}{only_batch}"}
        reason = static[0]
    return row | {"at_other_sizes": reason}


def _compared(
    model: nn.Module, captured: Captured, tries: Sequence[Inputs]
) -> tuple[fx.GraphModule, str]:
    """Half of everything gone, and whether that is the masked model at all of these inputs."""
    network = analyse(captured)
    keep = half_of_each(network.structures, random.Random(0))
    masked = plain_copy(model)
    zero_removed(masked, network.structures, keep)
    pruned = network.shrink(keep)
    for tried in tries:
        found = compare(pruned, masked, tried)
        if found.outcome == "wrong":
            sizes = ", ".join(str(list(x.shape)) for x in tried)
            return pruned, f"differs by {found.accepted:.1e} at {sizes}"
    return pruned, "equal"


def _allowed(model: nn.Module, tries: Any) -> Inputs | None:
    """The first inputs that the model runs on, with results that are not those of one size."""
    for tried in tries:
        try:
            with torch.no_grad():
                results = flat(model(*(x.clone() for x in tried)))
        except Exception:  # whatever a model says of sizes that it does not take
            continue
        if all(torch.isfinite(r).all() for r in results if r.is_floating_point()):
            return tuple(tried)
    return None


def _said_again(inputs: Inputs) -> Inputs:
    """All inputs of the common batch, four times."""
    batch = inputs[0].shape[0] if inputs[0].dim() else 0
    return tuple(
        x.repeat(_BATCH, *[1] * (x.dim() - 1)) if x.dim() and x.shape[0] == batch else x
        for x in inputs
    )


def _cut_short(inputs: Inputs) -> Iterator[Inputs]:
    """The inputs with all dimensions of one length shorter, for every length there is."""
    lengths = dict.fromkeys(n for x in inputs for n in x.shape[1:] if n > _SHORTEST)
    for length in lengths:
        for part, whole in _SHARES:
            yield tuple(_cut(x, length, length * part // whole) for x in inputs)


def _cut(x: Tensor, length: int, left: int) -> Tensor:
    for dim, size in enumerate(x.shape):
        if dim and size == length:
            x = x.narrow(dim, 0, left)
    return x.contiguous()

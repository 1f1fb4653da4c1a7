"""Products of two values: what is summed over is tied between them.

Labels that vary along a summed dimension tie a whole head, because every entry of the result
depends on all of them; labels along a batch dimension (the heads) pass through.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.graph.labels import ELEMENT, FEATURE
from edgeprune.graph.rules.elementwise import tie_broadcast
from edgeprune.graph.rules.registry import labels

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling


@dataclass(frozen=True)
class _Product:
    """Two operands over the same letters, and which letters are whose."""

    a: Tensor
    b: Tensor
    summed: list[int]
    only_a: list[int]
    only_b: list[int]
    batch: list[int]


def label_product(c: "Coupling", node: Node) -> Tensor | None:
    """``matmul``, ``bmm``: batched products."""
    a, b = c.labels(node.args[0]), c.labels(node.args[1])
    if a.dim() < 2 or b.dim() < 2:
        return None
    letters = "abcdefgh"[: max(a.dim(), b.dim()) - 2]
    lead = tuple(torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]))  # type: ignore[no-untyped-call]
    a = a.expand(lead + tuple(a.shape[-2:]))
    b = b.expand(lead + tuple(b.shape[-2:]))
    return contract(c, node, a, letters + "ij", b, letters + "jk", letters + "ik")


@labels("bmm")
def label_bmm(c: "Coupling", node: Node) -> Any:
    """Batched product."""
    return label_product(c, node)


@labels("baddbmm")
def label_baddbmm(c: "Coupling", node: Node) -> Any:
    """Batched product plus a value."""
    a, b = c.labels(node.args[1]), c.labels(node.args[2])
    product = contract(c, node, a, "aij", b, "ajk", "aik")
    return tie_broadcast(c, product, c.labels(node.args[0]), c.shape(node))


@labels("outer")
def label_outer(c: "Coupling", node: Node) -> Any:
    """Every pair of entries."""
    a, b = c.labels(node.args[0]), c.labels(node.args[1])
    return tie_broadcast(c, a.unsqueeze(1), b.unsqueeze(0), c.shape(node))


@labels("einsum")
def label_einsum(c: "Coupling", node: Node) -> Any:
    """A product of two operands, one of which may be a weight."""
    equation, operands = str(node.args[0]).replace(" ", ""), list(node.args[1])  # type: ignore[arg-type]
    if len(operands) != 2 or "." in equation or "->" not in equation:
        return None
    inputs, out = equation.split("->")
    first, second = inputs.split(",")
    left, right = (operand for operand in operands if isinstance(operand, Node))
    if any(len(set(part)) != len(part) for part in (first, second, out)):
        return None
    if c.is_parameter(left) and not c.is_parameter(right):
        left, right, first, second = right, left, second, first
    if c.is_parameter(right) and c.states[right].dim() >= 2:
        weighted = _einsum_weight(c, node, c.labels(left), right, (first, second, out))
        if weighted is not None:
            return weighted
    lost = [x for x in first + second if x not in out and not (x in first and x in second)]
    if lost:
        return None
    return contract(c, node, c.labels(left), first, c.labels(right), second, out)


def _einsum_weight(
    c: "Coupling", node: Node, x: Tensor, parameter: Node, letters: tuple[str, str, str]
) -> Tensor | None:
    """One summed and one new dimension of the weight stay prunable."""
    first, second, out = letters
    weight = c.weight(parameter)
    summed = [k for k in second if k not in out]
    made = [k for k in second if k in out and k not in first]
    complete = len(summed) + len(made) == len(second) and all(k in first for k in summed)
    if weight is None or not complete or not summed or not made:
        return None
    vector = c.tie(x, [i for i, k in enumerate(first) if k not in summed])
    for letter in summed[1:]:
        vector = c.tie(vector, [first.index(letter)])
        c.freeze(weight.dims[second.index(letter)], "summed together with another dimension")
    for letter in made[1:]:
        c.freeze(weight.dims[second.index(letter)], "made together with another dimension")
    columns = weight.dims[second.index(summed[0])]
    c.union(vector.reshape(-1).expand(len(columns)), columns)
    c.use(weight, second.index(made[0]), second.index(summed[0]), node)
    rows = weight.dims[second.index(made[0])]
    return rows.reshape([-1 if k == made[0] else 1 for k in out]).expand(c.shape(node))


def contract(
    c: "Coupling",
    node: Node,
    a: Tensor,
    a_letters: Sequence[str],
    b: Tensor,
    b_letters: Sequence[str],
    out_letters: Sequence[str],
) -> Tensor:
    """Labels of a product of two values, in Einstein notation."""
    sizes = dict(zip(a_letters, a.shape, strict=True))
    sizes.update(zip(b_letters, b.shape, strict=True))
    full = list(dict.fromkeys([*a_letters, *b_letters]))
    p = _Product(
        _spread(a, a_letters, full),
        _spread(b, b_letters, full),
        [i for i, x in enumerate(full) if x not in out_letters],
        [i for i, x in enumerate(full) if x not in b_letters],
        [i for i, x in enumerate(full) if x not in a_letters],
        [i for i, x in enumerate(full) if x in a_letters and x in b_letters and x in out_letters],
    )
    result = c.sets.classes(_combine(c, node, p))
    for dim in p.summed:
        result = result.narrow(dim, 0, 1)
    result = result.expand([sizes[x] if x in out_letters else 1 for x in full])
    order = [full.index(x) for x in out_letters] + p.summed
    return result.permute(order).reshape([sizes[x] for x in out_letters])


def _spread(x: Tensor, letters: Sequence[str], full: list[str]) -> Tensor:
    order = [list(letters).index(k) for k in full if k in letters]
    moved = x.permute(order)
    for index, letter in enumerate(full):
        if letter not in letters:
            moved = moved.unsqueeze(index)
    return moved


def _combine(c: "Coupling", node: Node, p: _Product) -> Tensor:
    over_a, over_b = c.varies(p.a, p.summed), c.varies(p.b, p.summed)
    if not (over_a or over_b):
        return _pass_through(c, p)
    if not c.resolving and (c.level(p.a) == FEATURE) != (c.level(p.b) == FEATURE):
        return _wait(c, node, p)
    if over_b and not over_a and c.varies(p.a, p.only_a) and not c.varies(p.a, p.batch):
        c.freeze(p.b, "is summed against features of another dimension")
        return p.a
    if over_a and not over_b and c.varies(p.b, p.only_b) and not c.varies(p.b, p.batch):
        c.freeze(p.a, "is summed against features of another dimension")
        return p.b
    a, b = c.tie(p.a, p.only_a), c.tie(p.b, p.only_b)
    c.union(a, b)
    c.tie(b, p.summed)
    tied = c.tie(a, p.summed)
    if all(tied.size(d) == 1 for d in p.batch):
        # Without heads the sum is zero, not gone, when its operands are.
        return torch.zeros([1] * tied.dim(), dtype=torch.int64)
    return tied


def _pass_through(c: "Coupling", p: _Product) -> Tensor:
    a, b = c.tie(p.a, p.summed), c.tie(p.b, p.summed)
    if c.varies(a, p.batch) or c.varies(b, p.batch):
        heads_a, heads_b = c.tie(a, p.only_a), c.tie(b, p.only_b)
        c.union(heads_a, heads_b)
        return heads_b if c.varies(heads_b, p.batch) else heads_a
    if c.varies(a, p.only_a) and c.varies(b, p.only_b):
        few_a = len(np.unique(c.sets.classes(a).numpy())) <= len(
            np.unique(c.sets.classes(b).numpy())
        )
        loser, winner = (a, b) if few_a else (b, a)
        c.freeze(loser, "meets other features in an outer product")
        return winner
    rest, result = (b, a) if c.varies(a, p.only_a) else (a, b)
    c.freeze(rest, "meets other features in a product")
    return result


def _wait(c: "Coupling", node: Node, p: _Product) -> Tensor:
    """A feature meets plain data: pass placeholders on until all certain ties are made."""
    x, own = (p.a, p.only_a) if c.level(p.a) == FEATURE else (p.b, p.only_b)
    classes = c.sets.classes(x)
    shape = [classes.size(d) if d in own + p.batch else 1 for d in range(classes.dim())]
    count = int(np.prod(shape))
    return c.sets.fresh(count, f"{node.name}:product", ELEMENT).reshape(shape)

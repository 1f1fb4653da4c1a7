"""Products of two values: what is summed over is tied between them.

A plane along a summed dimension is consumed, like features by a weight. Where its labels differ
from one entry of a batch dimension to the next (the features of each head), the batch entry goes
as a whole, because survivors must stay rectangular. Planes along the other dimensions pass.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from torch import Tensor
from torch.fx import Node

from edgeprune.graph.labels import ELEMENT, FEATURE, narrowed, strip
from edgeprune.graph.planes import Plane, Planes
from edgeprune.graph.rules.elementwise import tie_broadcast
from edgeprune.graph.rules.registry import labels

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling, Value


@dataclass(frozen=True)
class _Product:
    """Two operands laid out over the same dimensions, and which of these are whose.

    ``broadcast_a`` are the dimensions in which the first operand has size 1 or does not appear;
    ``origins`` are names for labels that are made on the way.
    """

    a: list[Plane]
    b: list[Plane]
    summed: list[int]
    only_a: list[int]
    only_b: list[int]
    batch: list[int]
    broadcast_a: list[int]
    broadcast_b: list[int]
    stored_a: bool
    stored_b: bool
    origins: Iterator[str]


def label_product(c: "Coupling", node: Node) -> "Value | None":
    """``matmul``, ``bmm``: batched products."""
    a, b = c.planes(node.args[0]), c.planes(node.args[1])
    if len(a.shape) < 2 or len(b.shape) < 2:
        return None
    lead = "abcdefgh"[: max(len(a.shape), len(b.shape)) - 2]
    first = lead[len(lead) - len(a.shape) + 2 :] + "ij"
    second = lead[len(lead) - len(b.shape) + 2 :] + "jk"
    stored = (node.args[0] in c.stored, node.args[1] in c.stored)
    return contract(c, node, a, first, b, second, lead + "ik", stored)


@labels("bmm")
def label_bmm(c: "Coupling", node: Node) -> "Value | None":
    """Batched product."""
    return label_product(c, node)


@labels("baddbmm")
def label_baddbmm(c: "Coupling", node: Node) -> "Value":
    """Batched product plus a value."""
    stored = (node.args[1] in c.stored, node.args[2] in c.stored)
    a, b = c.planes(node.args[1]), c.planes(node.args[2])
    product = contract(c, node, a, "aij", b, "ajk", "aik", stored)
    return tie_broadcast(c, product, c.planes(node.args[0]), c.shape(node))


@labels("outer")
def label_outer(c: "Coupling", node: Node) -> "Value":
    """Every pair of entries."""
    a, b = c.planes(node.args[0]), c.planes(node.args[1])
    return contract(c, node, a, "i", b, "j", "ij")


@labels("einsum")
def label_einsum(c: "Coupling", node: Node) -> "Value | None":
    """Products of two or more operands, one after the other."""
    equation, operands = str(node.args[0]).replace(" ", ""), list(node.args[1])  # type: ignore[arg-type]
    if "." in equation or "->" not in equation or len(operands) < 2:
        return None
    inputs, out = equation.split("->")
    letters = inputs.split(",")
    if any(len(set(part)) != len(part) for part in (*letters, out)):
        return None
    nodes = [operand for operand in operands if isinstance(operand, Node)]
    result, stored = c.planes(nodes[0]), nodes[0] in c.stored
    have = letters[0]
    for place in range(1, len(nodes)):
        needed = set(out).union(*letters[place + 1 :])
        made = "".join(k for k in dict.fromkeys(have + letters[place]) if k in needed)
        made = out if place == len(nodes) - 1 else made
        known = (stored, nodes[place] in c.stored)
        other = c.planes(nodes[place])
        result = contract(c, node, result, have, other, letters[place], made, known)
        have, stored = made, all(known)
    return result


def contract(
    c: "Coupling",
    node: Node,
    a: Planes,
    a_letters: Sequence[str],
    b: Planes,
    b_letters: Sequence[str],
    out_letters: Sequence[str],
    stored: tuple[bool, bool] = (False, False),
) -> Planes:
    """Planes of a product of two values, in Einstein notation.

    ``stored`` tells which of the two is a weight: what depends on no input of the network.
    """
    sizes = dict(zip(a_letters, a.shape, strict=True))
    for letter, size in zip(b_letters, b.shape, strict=True):
        sizes[letter] = max(size, sizes.get(letter, 1))
    full = list(sizes)
    own_a, own_b = (_sizes(x.shape, k, full) for x, k in ((a, a_letters), (b, b_letters)))
    p = _Product(
        _spread(a, a_letters, full),
        _spread(b, b_letters, full),
        [i for i, x in enumerate(full) if x not in out_letters],
        [i for i, x in enumerate(full) if x not in b_letters],
        [i for i, x in enumerate(full) if x not in a_letters],
        [i for i, x in enumerate(full) if x in a_letters and x in b_letters and x in out_letters],
        [i for i, size in enumerate(own_a) if size == 1],
        [i for i, size in enumerate(own_b) if size == 1],
        stored[0] and not stored[1],
        stored[1] and not stored[0],
        (f"{node.name}:product {number}" for number in count()),
    )
    _record_weight(c, node, p)
    parts = [*_sum_over(c, p), *_multiply(c, p)]
    shape = tuple(sizes[x] for x in out_letters)
    return Planes(
        shape, tuple(part.map(lambda x: _out(x, p, full, out_letters, shape)) for part in parts)
    )


def _sizes(shape: tuple[int, ...], letters: Sequence[str], full: list[str]) -> list[int]:
    known = dict(zip(letters, shape, strict=True))
    return [known.get(letter, 1) for letter in full]


def _spread(x: Planes, letters: Sequence[str], full: list[str]) -> list[Plane]:
    order = [list(letters).index(k) for k in full if k in letters]

    def wide(labels_: Tensor) -> Tensor:
        moved = labels_.permute(order)
        for index, letter in enumerate(full):
            if letter not in letters:
                moved = moved.unsqueeze(index)
        return moved

    return [part.map(wide) for part in x.parts]


def _out(
    x: Tensor, p: _Product, full: list[str], out: Sequence[str], shape: tuple[int, ...]
) -> Tensor:
    order = [full.index(k) for k in out] + p.summed
    moved = narrowed(x, p.summed).permute(order)
    return moved.reshape(moved.shape[: len(out)]).expand(shape)


def _record_weight(c: "Coupling", node: Node, p: _Product) -> None:
    """A weight's dimensions that are summed over consume, those of its own make features."""
    for stored, parts, own in ((p.stored_a, p.a, p.only_a), (p.stored_b, p.b, p.only_b)):
        for part in parts if stored else ():
            dims = c.varying(part.labels)
            vector = strip(part.labels).reshape(-1)
            if set(dims) & set(p.summed):
                c.use(vector, "input", node)
            elif set(dims) & set(own):
                c.use(vector, "output", node)


# -- what is summed over


def _sum_over(c: "Coupling", p: _Product) -> list[Plane]:
    """Planes along summed dimensions: consumed, or tied to whole heads, which are the result."""
    first, second = (_along(c, parts, p.summed) for parts in (p.a, p.b))
    _note_heads(c, p, [*first, *second])
    result: list[Plane] = []
    for a in first:
        dims = set(c.varying(a.labels)) & set(p.summed)
        b = next((b for b in second if dims & set(c.varying(b.labels))), None)
        if b is None:
            result += _one_summed(c, p, a)
        else:
            second.remove(b)
            result += _both_sides(c, p, a, b)
    for b in second:
        result += _one_summed(c, p, b)
    return result


def _along(c: "Coupling", parts: list[Plane], dims: list[int]) -> list[Plane]:
    """The planes along any of these dimensions, features first, then those with most labels."""
    found = [part for part in parts if c.varies(part.labels, dims)]
    return sorted(found, key=lambda part: (-c.level(part.labels), -c.count(part.labels)))


def _one_summed(c: "Coupling", p: _Product, x: Plane) -> list[Plane]:
    """A plane that is summed over on one side alone."""
    is_a = x in p.a
    own, absent, others = (p.only_a, p.broadcast_b, p.b) if is_a else (p.only_b, p.broadcast_a, p.a)
    if all(d in absent for d in p.summed if c.varies(x.labels, [d])):
        return _plain_sum(c, x, p)
    heads = _batched(c, others, p.batch)
    if heads is not None and c.varies(x.labels, p.batch):
        tied = c.tie(x.labels, [*own, *p.summed])
        c.union(tied, narrowed(heads.labels, _outside(heads, p.batch)))
        return []
    if p.stored_a or p.stored_b:
        c.freeze_now(x.labels, "consumes data that cannot shrink")
        return []
    c.freeze(x.labels, "is summed against data that cannot shrink")
    return [] if c.resolving else [_placeholder(c, p, x, own)]


def _both_sides(c: "Coupling", p: _Product, a: Plane, b: Plane) -> list[Plane]:
    weight = p.stored_a or p.stored_b
    plain = (c.level(a.labels) == FEATURE) != (c.level(b.labels) == FEATURE)
    if plain and not weight and not c.resolving:
        # A feature meets plain data: wait until all certain ties are made.
        x, own = (a, p.only_a) if c.level(a.labels) == FEATURE else (b, p.only_b)
        return [_placeholder(c, p, x, own)]
    alike = p.batch if c.narrows_heads() else []
    first = c.tie(a.labels, [*p.only_a, *alike])
    second = c.tie(b.labels, [*p.only_b, *alike])
    c.union(first, second)
    if c.varies(first, p.batch) or c.varies(second, p.batch):
        whole = c.tie(first, p.summed)
        other = c.tie(second, p.summed)
        heads = whole if c.varies(whole, p.batch) else other
        return [Plane(heads, a.zero or b.zero)]
    if not (a.zero or b.zero):
        for part in (a, b):
            c.freeze(part.labels, "is summed over, and not zero where its weights are")
    return []


def _plain_sum(c: "Coupling", x: Plane, p: _Product) -> list[Plane]:
    """A dimension that only one operand has: its entries are added up."""
    if not x.zero:
        c.freeze(x.labels, "is summed over, and not zero where its weights are")
    c.tie(x.labels, _outside(x, p.summed))
    return []


def _placeholder(c: "Coupling", p: _Product, x: Plane, own: list[int]) -> Plane:
    """Labels that stand for a result until it is known what its operands are tied to."""
    classes = c.sets.classes(x.labels)
    shape = [classes.size(d) if d in (*own, *p.batch) else 1 for d in range(classes.dim())]
    fresh = c.sets.fresh(math.prod(shape), next(p.origins), ELEMENT)
    return Plane(fresh.reshape(shape), x.zero)


# -- what is not summed over


def _multiply(c: "Coupling", p: _Product) -> list[Plane]:
    """Planes along batch dimensions are tied between the operands, all others pass."""
    result: list[Plane] = []
    a = [_narrowing(c, x, p.only_a, p) for x in p.a if not c.varies(x.labels, p.summed)]
    b = [_narrowing(c, x, p.only_b, p) for x in p.b if not c.varies(x.labels, p.summed)]
    heads_a, heads_b = _batched(c, a, p.batch), _batched(c, b, p.batch)
    _note_heads(c, p, [*a, *b])
    if heads_a is not None and heads_b is not None:
        first, second = c.tie(heads_a.labels, p.only_a), c.tie(heads_b.labels, p.only_b)
        c.union(first, second)
        chosen = second if c.varies(second, p.batch) else first
        result.append(Plane(chosen, heads_a.zero or heads_b.zero))
    elif heads_a is not None:
        result += _one_side(c, heads_a, p.b, p.broadcast_b, p)
    elif heads_b is not None:
        result += _one_side(c, heads_b, p.a, p.broadcast_a, p)
    for part in (*a, *b):
        if part is heads_a or part is heads_b:
            continue
        if not c.varying(part.labels):
            c.freeze(part.labels, "meets other data in a product")
        elif c.varies(part.labels, p.batch):
            c.freeze(part.labels, "shares heads with another structure")
        else:
            result.append(part)
    return result


def _narrowing(c: "Coupling", x: Plane, own: list[int], p: _Product) -> Plane:
    """The plane, made the same in every head where these stay and their width may shrink."""
    if c.narrows_heads() and c.varies(x.labels, own):
        return Plane(c.tie(x.labels, p.batch), x.zero)
    return x


def _note_heads(c: "Coupling", p: _Product, parts: list[Plane]) -> None:
    """Features that differ from head to head and within each: either can be removed."""
    if p.stored_a or p.stored_b:
        return
    for part in parts:
        within = [*p.summed, *p.only_a, *p.only_b]
        if c.varies(part.labels, p.batch) and c.varies(part.labels, within):
            c.heads(part.labels)


def _batched(c: "Coupling", parts: list[Plane], batch: list[int]) -> Plane | None:
    """The plane along batch dimensions with most labels."""
    found = [part for part in parts if c.varies(part.labels, batch)]
    return max(found, key=lambda part: c.count(part.labels), default=None)


def _one_side(
    c: "Coupling", heads: Plane, others: list[Plane], broadcast: list[int], p: _Product
) -> list[Plane]:
    """Batch entries of one operand alone: they pass where the other is the same for all."""
    dims = [d for d in p.batch if c.varies(heads.labels, [d])]
    if all(d in broadcast for d in dims):
        return [heads]
    partner = _batched(c, others, p.batch)
    if partner is not None:
        # It is summed over on the other side, whose whole heads go with these.
        tied = c.tie(partner.labels, _outside(partner, p.batch))
        own = c.tie(heads.labels, _outside(heads, p.batch))
        c.union(own, tied)
        return [Plane(own, heads.zero or partner.zero)]
    c.freeze_now(heads.labels, "meets data that cannot shrink in a product")
    return []


def _outside(part: Plane, dims: list[int]) -> list[int]:
    """All other dimensions."""
    return [d for d in range(part.labels.dim()) if d not in dims]

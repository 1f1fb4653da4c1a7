"""Complex numbers as pairs of real ones, for formats that have none.

Rotary embeddings are often written as products of complex numbers. Every complex value of a graph
becomes two real ones; what only moves data is applied to both.
"""

import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from edgeprune.graph.modules import attach
from edgeprune.graph.ops import argument, op_name

aten = torch.ops.aten
Pair = tuple[Any, Any]

_MOVES = {
    "alias", "clone", "contiguous", "detach", "expand", "flatten", "index", "index_select",
    "permute", "repeat", "reshape", "select", "slice", "squeeze", "transpose",
    "unflatten", "unsqueeze", "view",
}  # fmt: skip
_CASTS = {"to", "_to_copy", "type_as"}


def with_real_pairs(module: fx.GraphModule) -> fx.GraphModule:
    """A copy without complex values; a graph that has none is returned as it is.

    An operator on complex numbers that is not known stays, for the exporter to name.
    """
    if not any(_is_complex(node) for node in module.graph.nodes):
        return module
    return _Pairs(module).run()


class _Pairs:
    """Copies a graph; complex nodes have two copies."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        self._graph = fx.Graph()
        self._real: dict[Node, Node] = {}
        self._pairs: dict[Node, Pair] = {}
        self._parts: dict[str, Tensor] = {}
        self._made = 0

    def run(self) -> fx.GraphModule:
        """The graph module of the copy."""
        for node in self._module.graph.nodes:
            sources = [source for source in node.all_input_nodes if source in self._pairs]
            if node.op == "get_attr" and _is_complex(node):
                self._pairs[node] = self._stored(node)
            elif node.op == "call_function" and (sources or _is_complex(node)):
                self._convert(node)
            else:
                self._real[node] = self._graph.node_copy(node, self._copied)
                self._real[node].name = node.name
        root = nn.Module()
        tensors = (*self._module.named_parameters(), *self._module.named_buffers())
        for name, value in (*tensors, *self._parts.items()):
            attach(root, name, value)
        return fx.GraphModule(root, self._graph)

    def _copied(self, node: Node) -> Node:
        """The copy of a node for operators without a form: complex again, if it was."""
        if node in self._real:
            return self._real[node]
        return self._call(aten.complex.default, *self._pairs[node])

    def _convert(self, node: Node) -> None:
        name = op_name(node)
        if name in _MOVES:
            self._pairs[node] = (self._moved(node, 0), self._moved(node, 1))
        elif name in _CASTS and _is_complex(node):
            self._pairs[node] = self.pair(node.args[0])
        elif name.startswith("fft_") and not _is_plain_transform(node):
            self._real[node] = self._graph.node_copy(node, self._copied)
        elif name in _MADE:
            self._pairs[node] = _MADE[name](self, *node.args)
        elif name in _READ:
            self._real[node] = _READ[name](self, *node.args)
            self._real[node].name = node.name
        else:
            self._real[node] = self._graph.node_copy(node, self._copied)

    def _stored(self, node: Node) -> Pair:
        value = attrgetter(str(node.target))(self._module)
        parts = {f"{node.target}_real": value.real, f"{node.target}_imag": value.imag}
        self._parts.update({name: part.clone() for name, part in parts.items()})
        real, imaginary = (self._named(self._graph.get_attr(name)) for name in parts)
        return real, imaginary

    def _moved(self, node: Node, part: int) -> Node:
        def copied(source: Node) -> Node:
            pair = self._pairs.get(source)
            return self._copied(source) if pair is None else pair[part]

        return self._named(self._graph.node_copy(node, copied))

    def _call(self, target: Any, *args: Any) -> Node:
        return self._named(self._graph.call_function(target, args))

    def _named(self, node: Node) -> Node:
        """A new node, with a name that no captured one has."""
        self._made += 1
        node.name = f"pair__{self._made}"
        return node

    def pair(self, value: Any) -> Pair:
        """The parts of an argument; those of a real one are itself and 0."""
        if isinstance(value, Node):
            return self._pairs.get(value) or (self._copied(value), 0.0)
        return (value.real, value.imag) if isinstance(value, complex) else (value, 0.0)

    def polar(self, size: Node, angle: Node) -> Pair:
        """Parts of a number of this size and angle."""
        parts = (self._call(op, self._copied(angle)) for op in (aten.cos.default, aten.sin.default))
        real, imaginary = (self.times(self._copied(size), part) for part in parts)
        return real, imaginary

    def joined(self, value: Node) -> Pair:
        """Parts that lie in the last dimension of a real value."""
        real, imaginary = (
            self._call(aten.select.int, self._copied(value), -1, part) for part in (0, 1)
        )
        return real, imaginary

    def transformed(self, value: Node, _: Any = None, dims: Any = -1, *norm: Any) -> Pair:
        """The discrete Fourier transform along some dimensions, a product along each."""
        shape = value.meta["val"].shape
        dims = range(len(shape)) if dims is None else dims
        real, imaginary = self.pair(value)
        for dim in [dims] if isinstance(dims, int) else dims:
            size = shape[dim]
            angle = _angles(size, size)
            cos, sin = self._table(angle.cos()), self._table(-angle.sin())
            a, b = self._along(real, cos, dim), self._along(real, sin, dim)
            c, d = self._along(imaginary, cos, dim), self._along(imaginary, sin, dim)
            real, imaginary = self.plus(a, self.times(d, -1.0)), self.plus(b, c)
        return real, imaginary

    def real_transformed_back(self, value: Node, size: int, dim: int = -1, *norm: Any) -> Node:
        """The real signal of so many values with the given half of its transform."""
        real, imaginary = self.pair(value)
        half = value.meta["val"].shape[dim]
        # All but the first and, at an even size, the last stand for their mirror images, too.
        weight = torch.full((half, 1), 2.0, dtype=torch.float64)
        weight[0] = 1
        if size % 2 == 0:
            weight[-1] = 1
        angle = _angles(half, size)
        parts = (
            self._along(part, self._table(weight * wave / size), dim)
            for part, wave in ((real, angle.cos()), (imaginary, -angle.sin()))
        )
        return self._call(aten.alias.default, self.plus(*parts))

    def _table(self, value: Tensor) -> Node:
        self._parts[f"pair_table_{self._made}"] = value.float()
        return self._named(self._graph.get_attr(f"pair_table_{self._made}"))

    def _along(self, part: Any, table: Node, dim: int) -> Any:
        """The product of one part with a table along a dimension."""
        if not isinstance(part, Node):
            return 0.0
        part = self._call(aten.transpose.int, part, dim, -1)
        part = self._call(aten.matmul.default, part, table)
        return self._call(aten.transpose.int, part, dim, -1)

    def product(self, first: Any, second: Any) -> Pair:
        """(a + bi) (c + di)."""
        (a, b), (c, d) = self.pair(first), self.pair(second)
        real = self.plus(self.times(a, c), self.times(self.times(b, d), -1.0))
        return real, self.plus(self.times(a, d), self.times(b, c))

    def total(self, first: Any, second: Any) -> Pair:
        """The sum, part by part."""
        (a, b), (c, d) = self.pair(first), self.pair(second)
        return self.plus(a, c), self.plus(b, d)

    def conjugate(self, value: Node) -> Pair:
        """a - bi."""
        real, imaginary = self.pair(value)
        return real, self.times(imaginary, -1.0)

    def times(self, a: Any, b: Any) -> Any:
        """A product of real values, of which any may be a number."""
        if 0.0 in (x for x in (a, b) if not isinstance(x, Node)):
            return 0.0
        if not isinstance(a, Node):
            a, b = b, a
        return self._call(aten.mul.Tensor, a, b) if isinstance(a, Node) else a * b

    def plus(self, a: Any, b: Any) -> Any:
        """A sum likewise."""
        if not isinstance(a, Node):
            a, b = b, a
        if not isinstance(a, Node):
            return a + b
        return a if isinstance(b, float) and b == 0.0 else self._call(aten.add.Tensor, a, b)

    def stacked(self, value: Node) -> Node:
        """Both parts in a last dimension."""
        return self._call(aten.stack.default, list(self.pair(value)), -1)

    def part(self, value: Node, place: int) -> Node:
        """One part."""
        return self._call(aten.alias.default, self.pair(value)[place])


_MADE: dict[str, Callable[..., Pair]] = {
    "add": _Pairs.total,
    "complex": lambda pairs, real, imaginary: (pairs._copied(real), pairs._copied(imaginary)),
    "conj": _Pairs.conjugate,
    "_conj": _Pairs.conjugate,
    "fft_fft": _Pairs.transformed,
    "fft_fftn": lambda pairs, value, s=None, dims=None, *norm: pairs.transformed(value, s, dims),
    "mul": _Pairs.product,
    "polar": _Pairs.polar,
    "view_as_complex": _Pairs.joined,
}
_READ: dict[str, Callable[..., Node]] = {
    "fft_irfft": _Pairs.real_transformed_back,
    "imag": lambda pairs, value: pairs.part(value, 1),
    "real": lambda pairs, value: pairs.part(value, 0),
    "view_as_real": _Pairs.stacked,
}


def _is_complex(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_complex()


def _angles(rows: int, size: int) -> Tensor:
    """The angle of every entry of a Fourier matrix."""
    # Whole turns are left out before the product with pi: large angles would be rounded.
    turns = torch.arange(rows).unsqueeze(1) * torch.arange(size) % size
    return turns.double() * (2 * math.pi / size)


def _is_plain_transform(node: Node) -> bool:
    """Whether a Fourier transform neither cuts nor fills its input, at the usual scale."""
    value: Any = node.args[0]
    size = argument(node, 1, "n")
    dim = argument(node, 2, "dim", -1)
    if node.kwargs or argument(node, 3, "norm") not in (None, "backward"):
        return False
    if op_name(node) != "fft_irfft":
        # A matrix has one size, so that sizes must not be open.
        return op_name(node) in _MADE and size is None and "dynamic" not in value.meta
    return isinstance(size, int) and value.meta["val"].shape[dim] == size // 2 + 1

"""A network as few boxes: layers, products of values, normalisations, and where paths meet.

Everything else, such as activations and what only moves data, is drawn into the lines.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor
from torch.fx import Node

from edgeprune.graph.layer_names import layer_name
from edgeprune.graph.network import Network
from edgeprune.graph.ops import argument, op_name
from edgeprune.report.picture.boxes import Box, Diagram, Edge

_ATTENTION = "scaled_dot_product_attention"
_PRODUCTS = {_ATTENTION, "matmul", "bmm", "baddbmm", "einsum"}
_NORMS = {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"}
_LOOKUPS = {"embedding", "embedding_bag"}
_SHORT = {_ATTENTION: "attention", "layer_norm": "norm", "batch_norm": "norm"}
# Query, key and value; the mask that follows is no path of the network.
_ATTENTION_VALUES = 3


def make_diagram(network: Network) -> Diagram:
    """The boxes of a network; a normalisation right behind a single box is drawn into that."""
    return _join_norms(_Contraction(network).run())


class _Contraction:
    """Walks the graph once; every node is a box, or is passed through to the boxes before it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.state = dict(network.captured.module.named_parameters())
        self.touched = {slot.tensor for s in network.structures.values() for slot in s.slots}
        self.obstacles = {entry.node for entry in network.frozen}
        self.boxes: dict[str, Box] = {}
        self.edges: dict[Edge, None] = {}
        self.indices: set[str] = set()
        # By node the boxes that its value comes from, and the parameters where it has none.
        self.sources: dict[Node, tuple[str, ...]] = {}
        self.stored: dict[Node, tuple[str, ...]] = {}

    def run(self) -> Diagram:
        for node in self.network.captured.module.graph.nodes:
            self._visit(node)
        return Diagram(tuple(self._in_order()), tuple(self.edges))

    def _in_order(self) -> Iterable[Box]:
        """The boxes, each input in front of what first reads it, and those that nothing reads."""
        done: set[str] = set()
        for box in self.boxes.values():
            inputs = [self.boxes[a] for a, b in self.edges if b == box.name]
            yield from (b for b in inputs if b.kind == "input" and b.name not in done)
            done.update(b.name for b in inputs)
            if box.kind != "input":
                yield box

    def _visit(self, node: Node) -> None:
        self.sources[node] = self.stored[node] = ()
        if node.op == "get_attr":
            name = str(node.target)
            self.stored[node] = (name,) if name in self.state else ()
        elif node.op == "placeholder":
            self._add(Box(node.name, "input", "", "", (node.name,), _sizes_text(node)), node, ())
            if not node.meta["val"].is_floating_point():
                self.indices.add(node.name)
        elif node.op == "output":
            self._add(Box("output", "output", "", "", ("output",), ""), node, self._before(node))
        elif isinstance(node.meta.get("val"), Tensor | tuple | list):
            self._visit_call(node)

    def _visit_call(self, node: Node) -> None:
        before = self._before(node)
        tensors = tuple(dict.fromkeys(t for i in node.all_input_nodes for t in self.stored[i]))
        weights = [name for name in tensors if self.state[name].dim() > 1]
        operator = op_name(node)
        # What an attention reads besides values is a bias of its scores.
        multiplies = before and operator != _ATTENTION
        if weights and (multiplies or operator in _LOOKUPS):
            self._add(self._layer(node, weights[0], tensors), node, before)
        elif not before:
            self.stored[node] = tensors
        elif operator in _PRODUCTS | _NORMS or len(before) > 1 or node.name in self.obstacles:
            self._add(self._operator(node, tensors), node, before)
        else:
            self.sources[node] = before
            for name in tensors:  # a scale or an offset belongs to the layer before it
                self.boxes[before[0]] = self._with_tensor(self.boxes[before[0]], name)

    def _before(self, node: Node) -> tuple[str, ...]:
        """The boxes that a node reads from; masks and indices only where there is nothing else."""
        read: Iterable[Node] = node.all_input_nodes
        if op_name(node) == _ATTENTION:
            read = [i for i in node.args[:_ATTENTION_VALUES] if isinstance(i, Node)]
        found = tuple(dict.fromkeys(name for i in read for name in self.sources[i]))
        return tuple(name for name in found if name not in self.indices) or found

    def _add(self, box: Box, node: Node, before: Sequence[str]) -> None:
        self.boxes[box.name] = box
        self.edges.update(((name, box.name), None) for name in before)
        self.sources[node] = (box.name,)

    def _layer(self, node: Node, weight: str, tensors: tuple[str, ...]) -> Box:
        path = layer_name(weight)
        return Box(
            name=node.name,
            kind="layer",
            path=path,
            module=path.rpartition(".")[0],
            operators=(op_name(node),),
            detail=_weight_text(node, tuple(self.state[weight].shape)),
            tensors=tensors,
            parameters=sum(self.state[name].numel() for name in tensors),
            consumed=self._read(node),
            produced=self._along(node),
            reasons=tuple(str(f) for f in self.network.frozen if f.tensor in tensors),
            frozen=not self.touched.intersection(tensors),
        )

    def _operator(self, node: Node, tensors: tuple[str, ...]) -> Box:
        operator = op_name(node)
        around = str(node.meta["module_path"])
        named = layer_name(tensors[0]) if tensors and operator in _NORMS else ""
        froze = {f"freezes {f.tensor}: {f}" for f in self.network.frozen if f.node == node.name}
        return Box(
            name=node.name,
            kind="operator",
            path=named or around,
            module=named.rpartition(".")[0] if named else around,
            operators=(_SHORT.get(operator, operator),),
            detail=_sizes_text(node),
            tensors=tensors,
            parameters=sum(self.state[name].numel() for name in tensors),
            consumed=self._read(node),
            produced=self._along(node),
            reasons=tuple(sorted(froze)),
        )

    def _with_tensor(self, box: Box, name: str) -> Box:
        if name in box.tensors:
            return box
        more = box.parameters + self.state[name].numel()
        return replace(box, tensors=(*box.tensors, name), parameters=more)

    def _read(self, node: Node) -> tuple[str, ...]:
        """Structures along the values that a node reads."""
        read = [i for i in node.all_input_nodes if self.sources[i]]
        return tuple(dict.fromkeys(name for i in read for name in self._along(i)))

    def _along(self, node: Node) -> tuple[str, ...]:
        """Structures along what a node makes."""
        dims = (dim for shape in self.network.shapes(node.name) for dim in shape)
        return tuple(dict.fromkeys(name for dim in dims for name in dim.names()))


def _join_norms(diagram: Diagram) -> Diagram:
    """Draw a normalisation that alone reads the box before it into that box."""
    boxes = {box.name: box for box in diagram.boxes}
    edges = list(diagram.edges)
    for name, box in list(boxes.items()):
        before = [a for a, b in edges if b == name]
        if box.operators[0] not in {_SHORT.get(n, n) for n in _NORMS} or len(before) != 1:
            continue
        (first,) = before
        if boxes[first].kind == "input" or sum(a == first for a, _ in edges) != 1:
            continue
        boxes[first] = _joined(boxes[first], boxes.pop(name))
        edges = [(first if a == name else a, b) for a, b in edges if b != name]
    return Diagram(tuple(boxes.values()), tuple(edges))


def _joined(box: Box, norm: Box) -> Box:
    return replace(
        box,
        operators=(*box.operators, *norm.operators),
        tensors=(*box.tensors, *norm.tensors),
        parameters=box.parameters + norm.parameters,
        produced=norm.produced,
        reasons=(*box.reasons, *norm.reasons),
    )


def _weight_text(node: Node, shape: tuple[int, ...]) -> str:
    """Kernel, inputs and outputs of a layer, and the groups it has."""
    operator = op_name(node)
    if operator.startswith("conv"):
        groups = int(argument(node, 6, "groups", 1))
        first, second = shape[0], shape[1] * groups
        ends = f"{first}→{second}" if "transpose" in operator else f"{second}→{first}"
        kernel = "x".join(map(str, shape[2:]))
        return f"{kernel} {ends}" + (f" /{groups}" if groups > 1 else "")
    if operator == "linear":
        return f"{shape[1]}→{shape[0]}"
    return "x".join(map(str, shape))


def _sizes_text(node: Node) -> str:
    value = node.meta["val"]
    first = value[0] if isinstance(value, tuple | list) else value
    return "x".join(str(int(size)) for size in first.shape) if isinstance(first, Tensor) else ""

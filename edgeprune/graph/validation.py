"""Tries rewritings on shapes alone, before anybody relies on them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, ShapeEnv

from edgeprune.errors import StructureError
from edgeprune.graph.capture import Captured
from edgeprune.graph.layout import Layout
from edgeprune.graph.ops import op_name
from edgeprune.graph.running import first_line
from edgeprune.graph.shrinker import Shrinker

Constants = Mapping[Node, Any]


def removable_structures(
    captured: Captured, layout: Layout, constants: Constants
) -> dict[str, frozenset[str]]:
    """Structures of which nothing need stay: the graph without them is still a graph.

    By each the names of the nodes that still compute something of the inputs without it.
    """
    candidates = {}
    for name in layout.offsets:
        shrinker = _without(captured, layout, constants, [name])
        try:
            graph = shrinker.build()
        except StructureError:
            continue
        found = computing(graph)
        if all(node in found for node in graph.output_node().all_input_nodes):
            candidates[name] = frozenset(node.name for node in found)
    holding = _shapes_hold(captured, layout, constants, list(candidates))
    return {name: run for name, run in candidates.items() if name in holding}


def _without(
    captured: Captured, layout: Layout, constants: Constants, names: Sequence[str]
) -> Shrinker:
    stays = np.ones(sum(layout.units.values()), bool)
    for name in names:
        start = layout.offsets[name]
        stays[start : start + layout.units[name]] = False
    return Shrinker(captured, layout, constants, stays, shapes_only=True)


def _shapes_hold(
    captured: Captured, layout: Layout, constants: Constants, names: Sequence[str]
) -> set[str]:
    """Those of these structures whose removal gives the predicted shapes.

    Running shapes is slow, so all are removed together, and halves are tried where that fails.
    """
    if not names:
        return set()
    shrinker = _without(captured, layout, constants, names)
    try:
        if find_mismatch(shrinker, shrinker.run()) is None:
            return set(names)
    except StructureError:
        pass
    if len(names) == 1:
        return set()
    half = len(names) // 2
    first = _shapes_hold(captured, layout, constants, names[:half])
    return first | _shapes_hold(captured, layout, constants, names[half:])


def computing(graph: fx.Graph) -> set[Node]:
    """The nodes whose values depend on those of an input, and the inputs."""
    depends: set[Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or (
            node.op == "call_function"
            and op_name(node) != "sym_size"
            and any(source in depends for source in node.all_input_nodes)
        ):
            depends.add(node)
    return depends


def invalid_structures(
    captured: Captured, layout: Layout, constants: Constants
) -> dict[str, tuple[Node | None, str]]:
    """Structures whose rewriting fails or gives other shapes than predicted, and where."""
    stays = np.ones(sum(layout.units.values()), bool)
    for name, start in layout.offsets.items():
        count = layout.units[name]
        gone = min(count // 2, count - layout.minimum.get(name, 0))
        stays[start : start + gone] = False
    shrinker = Shrinker(captured, layout, constants, stays, shapes_only=True)
    try:
        mismatch = find_mismatch(shrinker, shrinker.run())
    except StructureError as error:
        return {name: (None, str(error)) for name in layout.offsets}
    if mismatch is None:
        return {}
    node, reason = mismatch
    guilty: set[str] = set()
    for part in (node, *node.all_input_nodes):
        tensors = list(layout.values.get(part, ()))
        if part.op == "get_attr":
            tensors.append(layout.parameters.get(str(part.target), ()))
        for units in (d for dims in tensors for d in dims):
            guilty.update(layout.structures_in(units))
    return dict.fromkeys(guilty or layout.offsets, (node, reason))


class _ShapeCheck(fx.Interpreter):
    """Runs the shrunk graph on fake tensors and compares every shape with the prediction."""

    def __init__(self, shrinker: Shrinker, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shrinker = shrinker

    def run_node(self, n: Node) -> Any:
        """The node's result."""
        original = self.shrinker.nodes_by_name.get(n.name)
        try:
            result = super().run_node(n)
        except _UNKNOWN as error:
            raise _ShapesUnknown from error
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if "SymInt" in str(error):
                raise _ShapesUnknown from error  # an operator that takes no symbols
            raise _Mismatch(original, f"rewriting fails: {first_line(error)}") from error
        if original is not None and n.op == "call_function":
            self._compare(original, result)
        return result

    def _compare(self, original: Node, result: Any) -> None:
        parts = result if isinstance(result, tuple | list) else (result,)
        tensors = [part for part in parts if isinstance(part, Tensor)]
        for index, tensor in enumerate(tensors):
            want = self.shrinker.copy_shape(original, index)
            known = zip(tensor.shape, want, strict=False)
            # Sizes that depend on values are symbols, and equal to whatever they will be.
            if tensor.dim() != len(want) or any(isinstance(a, int) and a != b for a, b in known):
                raise _Mismatch(original, f"rewriting gives {list(tensor.shape)}, not {list(want)}")


_UNKNOWN = (
    DynamicOutputShapeException,
    DataDependentOutputException,
    GuardOnDataDependentSymNode,
)


class _ShapesUnknown(Exception):
    """From here on shapes depend on values; rules freeze what such operators touch."""


class _Mismatch(Exception):
    def __init__(self, node: Node | None, reason: str) -> None:
        super().__init__(reason)
        self.node = node
        self.reason = reason


def find_mismatch(shrinker: Shrinker, module: fx.GraphModule) -> tuple[Node, str] | None:
    """The first node of a finished rewriting that fails or has an unexpected shape."""
    symbols = ShapeEnv()
    with FakeTensorMode(allow_non_fake_inputs=True, shape_env=symbols) as mode, torch.no_grad():
        inputs = [mode.from_tensor(x, static_shapes=True) for x in shrinker.captured.example_inputs]
        try:
            _ShapeCheck(shrinker, module).run(*inputs)
        except _ShapesUnknown:
            return None
        except _Mismatch as mismatch:
            node = mismatch.node or next(iter(shrinker.nodes_by_name.values()))
            return node, mismatch.reason
    return None

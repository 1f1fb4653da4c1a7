"""Names for what was measured, that do not depend on weights, files or paths."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeprune.formats import Formats
from edgeprune.kernels.compilation import revision

if TYPE_CHECKING:
    from torch import fx

    from edgeprune.graph.network import Network
    from edgeprune.graph.structure import SymbolicDim

# Structures, and a site or nothing.
Bucket = tuple[tuple[str, ...], str]

# Raised when networks are exported in other operators or rounded at other places, so that older
# measurements do not count.
_EXPORT = 7


def network_signature(network: "Network") -> str:
    """Hash of the graph: operators and what they read, symbolic shapes, structures, their names."""
    rows = [
        [node.name, [n.name for n in node.all_input_nodes], *describe_node(network, node, {})]
        for node in _nodes(network)
    ]
    structures = [[s.name, s.kind, s.units, s.removable] for s in network.structures.values()]
    return digest([_EXPORT, rows, structures])


def plan_signature(network: str, levels: Mapping[str, int], formats: Formats | None = None) -> str:
    """Name of a variant: the network's signature, all levels, formats that are not dense."""
    named = sorted((layer, str(format_)) for layer, format_ in (formats or {}).items())
    chosen = sorted(levels.items())
    if any(format_.sparse for format_ in (formats or {}).values()):
        # Other kernels, other times.
        named.append(("kernels", revision()))
    return f"{network}:{digest([chosen, named] if named else chosen)}"


def bucket_class(network: "Network", bucket: Sequence[str], nodes: Iterable[str]) -> str:
    """Hash that is equal for parts that compute the same, such as the layers of an encoder.

    Structures are named by their place in the bucket, so the class says what is computed and how
    its shapes follow from the levels, and not where.
    """
    places = {name: str(place) for place, name in enumerate(bucket)}
    wanted = set(nodes)
    rows = sorted(
        json.dumps(describe_node(network, node, places))
        for node in _nodes(network)
        if node.name in wanted
    )
    sizes = [[network.structures[name].units, unit_size(network, name)] for name in bucket]
    return digest([rows, sizes])


def describe_node(network: "Network", node: "fx.Node", places: Mapping[str, str]) -> list[Any]:
    """Operator, arguments that are no tensors, output shapes and parameter shapes of a node."""
    from torch.fx.node import map_arg

    parameters = [
        [_dim(dim, places) for dim in network.param_shape(str(source.target))]
        for source in node.all_input_nodes
        if source.op == "get_attr"
    ]
    shapes = [[_dim(dim, places) for dim in shape] for shape in network.shapes(node.name)]
    target = str(node.target) if node.op == "call_function" else ""
    # Stride, dilation, groups and the like decide the time at equal shapes.
    arguments = str(map_arg((node.args, node.kwargs), lambda _: "tensor"))
    return [node.op, target, arguments, shapes, parameters]


def unit_size(network: "Network", name: str) -> int:
    """Channels in one unit of a structure, as its consumers see them."""
    structure = network.structures[name]
    slots = structure.inputs() or structure.slots
    return max(1, int((slots[0].unit == 0).sum())) if slots else 1


def digest(value: Any) -> str:
    """Short hash of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _nodes(network: "Network") -> list["fx.Node"]:
    return [
        n for n in network.captured.module.graph.nodes if n.op in ("call_function", "placeholder")
    ]


def _dim(dim: "SymbolicDim", places: Mapping[str, str]) -> list[Any]:
    found: list[Any] = []
    for factor in dim.factors():
        counts = sorted([places.get(name, name), count] for name, count in factor.per_unit)
        found += [factor.fixed, counts]
    return found

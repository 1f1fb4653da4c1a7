"""Sites: the layers of a graph whose format can be chosen, grouped as one kernel call runs them."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import fx

from edgeprune.formats import DENSE, DENSE_INT8, Block, Format
from edgeprune.graph.layers import WeightedLayer, weighted_layers

aten = torch.ops.aten
_ACTIVATIONS: dict[Any, str] = {
    aten.relu.default: "relu",
    aten.relu_.default: "relu",
    aten.gelu.default: "gelu",
    aten.silu.default: "silu",
    aten.silu_.default: "silu",
}
# A smaller weight takes no time worth saving.
_LEAST_WEIGHTS = 1024
# A smaller layer takes about a microsecond. A classifier on one row is such a layer, and where it
# is the last dense product, OpenVINO runs a network without it in float32.
_LEAST_PRODUCTS = 16_384
# Two layers in a row seldom want sparsities further apart than this many offered ones.
_MOST_APART = 2
# Outputs of a block that kernels for convolutions know.
_WIDEST_OF_CONVOLUTIONS = 4

Option = tuple[Format, ...]


@dataclass(frozen=True)
class Site:
    """Layers that change their formats together.

    Two linear layers in a row run as one call that keeps activations in panels between them; those
    that read the same tensor (query, key and value) round it once.

    Attributes:
        name: As plans call it; unlike every structure's name.
        layers: Names of the layers' graph nodes.
        in_a_row: Whether each layer reads what the one before makes.
        convolution: Whether it is a convolution.
    """

    name: str
    layers: tuple[str, ...]
    in_a_row: bool = False
    convolution: bool = False

    def runs(self, family: str) -> bool:
        """Whether there are kernels for its layers."""
        rows = _block_of(family)[0]
        return not self.convolution or rows <= _WIDEST_OF_CONVOLUTIONS

    def options(self, families: Sequence[str], sparsities: Sequence[float]) -> tuple[Option, ...]:
        """What can be chosen: a format for each layer; the first option is dense.

        Args:
            families: Names as :attr:`Format.family` gives them, without the dense one.
            sparsities: Ascending shares of zeros for the sparse families.
        """
        count = len(self.layers)
        found: list[Option] = [(DENSE,) * count]
        for family in families:
            if family == DENSE_INT8.family:
                found.append((DENSE_INT8,) * count)
                continue
            offered = [_of_family(family, sparsity) for sparsity in sparsities]
            if self.in_a_row:
                pairs = product(range(len(offered)), repeat=count)
                found += [
                    tuple(offered[i] for i in places)
                    for places in pairs
                    if max(places) - min(places) <= _MOST_APART
                ]
            else:
                found += [(format_,) * count for format_ in offered]
        return tuple(found)


def _of_family(family: str, sparsity: float) -> Format:
    precision = family.partition("-")[0]
    return Format(precision, _block_of(family), sparsity)  # type: ignore[arg-type]


def _block_of(family: str) -> Block:
    """Of a sparse family; that of a dense one is a single weight."""
    rows, _, depth = family.partition("-")[2].partition("x")
    return int(rows or 1), int(depth or 1)


def find_sites(module: fx.GraphModule) -> dict[str, Site]:
    """All sites of a captured graph by name, in execution order."""
    layers = {name: layer for name, layer in weighted_layers(module).items() if _counts(layer)}
    readers: dict[Any, list[str]] = defaultdict(list)
    for name, layer in layers.items():
        if not layer.convolution:
            readers[layer.node.args[0]].append(name)
    done: set[str] = set()
    sites = []
    for name, layer in layers.items():
        if name in done:
            continue
        alike = readers.get(layer.node.args[0], [name])
        following = layer_behind(layer.node)
        if layer.convolution:
            sites.append(Site(f"{name}@format", (name,), convolution=True))
        elif len(alike) > 1:
            sites.append(Site(f"{name}@format", tuple(alike)))
        elif following in layers and len(readers[layers[following].node.args[0]]) == 1:
            sites.append(Site(f"{name}@format", (name, following), in_a_row=True))
        else:
            sites.append(Site(f"{name}@format", (name,)))
        done.update(sites[-1].layers)
    return {site.name: site for site in sites}


@dataclass(frozen=True)
class Source:
    """Where the values that a site reads come from.

    Attributes:
        site: The last site before it; empty where another layer or none at all stands there.
        joined: Whether values of several layers come together.
    """

    site: str
    joined: bool


def sources(module: fx.GraphModule, sites: Collection[Site]) -> dict[str, Source]:
    """By site where the values come from that it reads, maybe through layers without weights.

    Of several layers it is the one with the most values, for others only scale them (squeeze and
    excitation); of equal ones the one that is computed last.
    """
    site_of = {layer: site.name for site in sites for layer in site.layers}
    order = {node: place for place, node in enumerate(module.graph.nodes)}
    layers = weighted_layers(module)
    found = {}
    for site in sites:
        before = _layers_before(layers[site.layers[0]].node, layers)
        last = max(before, key=lambda node: (_values(node), order[node]), default=None)
        name = site_of.get(last.name, "") if last is not None else ""
        found[site.name] = Source(name, len(before) > 1)
    return found


def _values(node: fx.Node) -> int:
    value = node.meta.get("val")
    return math.prod(int(size) for size in value.shape) if isinstance(value, torch.Tensor) else 0


def _layers_before(node: fx.Node, layers: Mapping[str, WeightedLayer]) -> list[fx.Node]:
    """The nearest layers with weights that a layer's input comes from."""
    found, seen, waiting = [], set(), [node.args[0]]
    while waiting:
        before = waiting.pop()
        if not isinstance(before, fx.Node) or before in seen:
            continue
        seen.add(before)
        if before.name in layers:
            found.append(before)
        else:
            waiting += before.all_input_nodes
    return found


def readers(module: fx.GraphModule, sites: Collection[Site]) -> dict[str, str]:
    """By node the first site that reads it, maybe through layers without weights."""
    site_of = {layer: site.name for site in sites for layer in site.layers}
    layers = weighted_layers(module)
    found: dict[str, str] = {}
    for node in reversed(module.graph.nodes):
        for user in node.users:
            if user.name in site_of:
                found[node.name] = site_of[user.name]
                break
            if user.name in found and user.name not in layers:
                found[node.name] = found[user.name]
    return found


def _counts(layer: WeightedLayer) -> bool:
    """Whether a layer multiplies enough for its format to matter, by a weight of its own."""
    source = layer.node.args[1]
    assert isinstance(source, fx.Node)
    weight, made = source.meta.get("val"), layer.node.meta.get("val")
    large = True
    if isinstance(weight, torch.Tensor) and isinstance(made, torch.Tensor):
        positions = made.numel() // weight.shape[0]
        large = weight.numel() >= _LEAST_WEIGHTS and weight.numel() * positions >= _LEAST_PRODUCTS
    two_dimensional = layer.node.target not in (aten.conv1d.default, aten.conv1d.padding)
    return large and two_dimensional and len(source.users) == 1


def fused_activation(node: fx.Node) -> tuple[str, fx.Node | None]:
    """The activation that alone reads a layer, and its node; ``none`` where there is no such."""
    if len(node.users) != 1:
        return "none", None
    user = next(iter(node.users))
    name = _ACTIVATIONS.get(user.target)
    exact = user.kwargs.get("approximate", "none") == "none" and len(user.args) == 1
    return (name, user) if name is not None and exact else ("none", None)


def layer_behind(node: fx.Node) -> str:
    """The name of the only reader of a layer, through at most one activation; or nothing."""
    _, activation = fused_activation(node)
    users = list((activation or node).users)
    return users[0].name if len(users) == 1 and users[0].target == aten.linear.default else ""

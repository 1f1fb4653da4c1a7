"""Which structures and which site a runtime node's time belongs to.

A runtime merges and renames nodes. Each executed node is traced back to graph nodes by the names
of its sources, and those to the structures that change their shapes and to the site that has a
format. Nodes that the dense model executes as one stay together in all variants: what is left of
an emptied block is charged to that block.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgeprune.formats import DENSE, Format, Formats
from edgeprune.graph.sites import readers
from edgeprune.latency.axis import Axis, axes_of
from edgeprune.latency.needs import needed_structures
from edgeprune.latency.signature import Bucket, bucket_class

if TYPE_CHECKING:
    from edgeprune.graph.network import Network
    from edgeprune.graph.sites import Site

Layer = Mapping[str, Any]

_NAME = re.compile(r"/([^/,]+)(?=/)")
# Between two layers a conversion bears the names of both; what quantises the values that a layer
# reads or makes bears the layer's.
_BETWEEN = re.compile(r"_/([^/,]+)/[^,]*$")
_PAIR = 2
_QUANTISED_INPUT, _QUANTISED_OUTPUT = "/fq_input", "/fq_output"


@dataclass(frozen=True)
class Weight:
    """A layer's weight, whose zeros a sparse format leaves out.

    Attributes:
        layer: Name of the graph node.
        sides: Its outputs and its inputs.
    """

    layer: str
    sides: tuple[Axis, ...]

    def kept(self, levels: Mapping[str, int], format_: Format) -> int:
        """How many weights a sparse format multiplies."""
        size = 1.0 - format_.sparsity
        for side in self.sides:
            size *= side.size(levels)
        return round(size)


@dataclass(frozen=True)
class Part:
    """A bucket of structures and maybe a site: its class, and the sizes its time depends on.

    Attributes:
        bucket: Structures and site.
        kind: Equal for parts that compute the same at the same sizes.
        axes: The sizes, each by the levels that decide it.
        weights: Of the site's layers.
        needs: Structures without any of which it is not run whatever its sizes, since nothing
            reads what it makes, or that is a constant: the neurons of experts for their router.
    """

    bucket: Bucket
    kind: str
    axes: tuple[Axis, ...]
    weights: tuple[Weight, ...] = ()
    needs: tuple[str, ...] = ()

    @cached_property
    def structures(self) -> tuple[str, ...]:
        """The structures that its time is told by."""
        return tuple(dict.fromkeys((*self.bucket[0], *self._told)))

    @cached_property
    def _told(self) -> tuple[str, ...]:
        """What it needs, if its time is a pair's even so, which a search is exact with.

        What emptying one of more saves is known on average alone.
        """
        deciding = {*self.bucket[0], *self.needs}
        return self.needs if len(deciding) + bool(self.bucket[1]) <= _PAIR else ()

    def unread(self, levels: Mapping[str, int]) -> bool:
        """Whether nothing reads what it makes, so that it is not run whatever its sizes."""
        return not all(levels[name] for name in self.needs)

    def family(self, formats: Formats) -> str:
        """Of the formats of the site's layers; equal families run the same kernels."""
        families = dict.fromkeys(formats.get(w.layer, DENSE).family for w in self.weights)
        return "+".join(families) or DENSE.family

    def sizes(self, levels: Mapping[str, int], formats: Formats | None = None) -> list[int]:
        """The sizes at ``levels``; behind them, for sparse formats, the weights that are kept.

        All are 0 where nothing reads what the part makes, as far as its structures tell.
        """
        read = all(levels[name] for name in self._told)
        sizes = [axis.size(levels) if read else 0 for axis in self.axes]
        chosen = [(w, (formats or {}).get(w.layer, DENSE)) for w in self.weights]
        if any(format_.sparse for _, format_ in chosen):
            sizes += [weight.kept(levels, format_) if read else 0 for weight, format_ in chosen]
        return sizes


class Attribution:
    """Shares out the layer times of a network's variants over buckets.

    A bucket is the tuple of structures whose levels change a layer's cost, and the name of the
    site whose format does, or nothing; ``((), "")`` holds what none changes.
    """

    def __init__(
        self,
        network: "Network",
        dense_layers: Sequence[Layer],
        sites: "Mapping[str, Site] | None" = None,
    ) -> None:
        """Fix the bucket of every graph node by how the dense model executes it."""
        self._network = network
        self._order = {name: place for place, name in enumerate(network.structures)}
        self._graph = {node.name: node for node in network.captured.module.graph.nodes}
        self._sites = sites or {}
        self._site_of = {layer: s.name for s in self._sites.values() for layer in s.layers}
        self._reader_of = readers(network.captured.module, self._sites.values())
        self._bucket_of: dict[str, Bucket] = {}
        for layer in dense_layers:
            nodes = self._sources(layer)
            bucket = self._union(nodes)
            for node in nodes:
                self._bucket_of.setdefault(node, bucket)
        self._members: dict[Bucket, list[str]] = defaultdict(list, {((), ""): []})
        for node, bucket in self._bucket_of.items():
            self._members[bucket].append(node)
        # What bears an output's name alone stays with what it follows in the dense model.
        self._unnamed: dict[str, Bucket] = {}
        for layer, bucket in self._charged(dense_layers):
            if not self._sources(layer):
                self._unnamed[layer["name"]] = bucket

    def parts(self) -> list[Part]:
        """All buckets of the dense model; equal kinds compute the same at the same sizes."""
        needed = needed_structures(self._network)
        return [self._part(bucket, nodes, needed) for bucket, nodes in self._members.items()]

    def _part(
        self, bucket: Bucket, nodes: Sequence[str], needed: Mapping[str, frozenset[str]]
    ) -> Part:
        axes = self._axes(bucket)
        emptying = {axis.names[0] for axis in axes if not axis.fixed and len(axis.counts) == 1}
        needs = frozenset[str]()
        if axes:
            needs = (
                frozenset.intersection(*(needed.get(node, frozenset()) for node in nodes))
                - emptying
            )
        return Part(
            bucket,
            bucket_class(self._network, bucket[0], nodes),
            axes,
            self._weights(bucket),
            tuple(sorted(needs, key=self._order.__getitem__)),
        )

    def time_by_bucket(self, layers: Sequence[Layer]) -> dict[Bucket, float]:
        """Microseconds of each bucket in one profile, in execution order."""
        result: dict[Bucket, float] = defaultdict(float)
        for layer, bucket in self._charged(layers):
            result[bucket] += float(layer["us"])
        return dict(result)

    def time_by_handover(self, layers: Sequence[Layer]) -> dict[str, float]:
        """Microseconds that one profile spent on converting what each site reads."""
        result: dict[str, float] = defaultdict(float)
        for layer in layers:
            if (site := self._converts_for(layer)) is not None:
                result[site] += float(layer["us"])
        return dict(result)

    def structures_fused(self, layers: Sequence[Layer]) -> dict[Bucket, tuple[str, ...]]:
        """By bucket the other buckets' structures of which one of its layers runs a node as well.

        Of the dense model there are none; what is left of an emptied block goes to the layer in
        front of it.
        """
        found: dict[Bucket, dict[str, None]] = defaultdict(dict)
        for layer, bucket in self._charged(layers):
            others = (self._bucket_of.get(node, bucket) for node in self._sources(layer))
            names = (name for structures, _ in others for name in structures)
            found[bucket].update((name, None) for name in names if name not in bucket[0])
        return {bucket: tuple(names) for bucket, names in found.items() if names}

    def _charged(self, layers: Sequence[Layer]) -> Iterator[tuple[Layer, Bucket]]:
        """The layers that are no conversions, each with its bucket, in execution order."""
        last: Bucket = ((), "")
        for layer in layers:
            if self._converts_for(layer) is None:
                last = self._bucket(layer, last)
                yield layer, last

    def _converts_for(self, layer: Layer) -> str | None:
        """The site for which a layer converts that the runtime made and that does nothing else."""
        name = layer["name"]
        made = [token for other in layer["original"] for token in _NAME.findall(other)[:1]]
        tokens = [token for token in _NAME.findall(name)[:1] if token in self._graph]
        if any(token in self._graph and [token] != tokens for token in made):
            return None  # an operator of the network, to which something was fused
        if tokens and _QUANTISED_INPUT in name:
            return self._site_of.get(tokens[0])
        if tokens and _QUANTISED_OUTPUT in name:
            return self._reader_of.get(tokens[0])
        between = _BETWEEN.search(name)
        if made or between is None:
            return None
        return self._site_of.get(between.group(1))

    def _axes(self, bucket: Bucket) -> tuple[Axis, ...]:
        """The different sizes in a bucket that its structures decide, at most one a direction."""
        found: dict[tuple[tuple[str, float], ...], Axis] = {}
        for node in self._members.get(bucket, ()):
            for axis in self._node_axes(node, bucket):
                most = max(count for _, count in axis.counts)
                direction = tuple((name, count / most) for name, count in axis.counts)
                known = found.get(direction)
                # The same units by channel and by head: channels say more about blocks of 16.
                if known is None or max(count for _, count in known.counts) < most:
                    found[direction] = axis
        places = {name: place for place, name in enumerate(bucket[0])}
        key = lambda axis: [(places[name], count) for name, count in axis.counts]  # noqa: E731
        return tuple(sorted(found.values(), key=key))

    def _weights(self, bucket: Bucket) -> tuple[Weight, ...]:
        if not bucket[1]:
            return ()
        return tuple(
            Weight(layer, tuple(self._sides(layer))) for layer in self._sites[bucket[1]].layers
        )

    def _sides(self, layer: str) -> Iterable[Axis]:
        weight = next(n for n in self._graph[layer].all_input_nodes if n.op == "get_attr")
        for dim in self._network.param_shape(str(weight.target)):
            yield from axes_of(dim)

    def _node_axes(self, node: str, bucket: Bucket) -> Iterable[Axis]:
        shapes = list(self._network.shapes(node))
        for feeding in self._graph[node].all_input_nodes:
            if feeding.op == "get_attr":
                shapes.append(self._network.param_shape(str(feeding.target)))
            else:
                shapes.extend(self._network.shapes(feeding.name))
        for shape in shapes:
            for dim in shape:
                for axis in axes_of(dim):
                    counts = tuple((n, c) for n, c in axis.counts if n in bucket[0] and c > 0)
                    if counts:
                        yield Axis(axis.fixed, counts)

    def _bucket(self, layer: Layer, last: Bucket) -> Bucket:
        """The bucket of the node that names the layer, else of a source, else of its elder."""
        names = [layer["name"], *layer["original"]]
        if _QUANTISED_INPUT in layer["name"]:
            names.append(names.pop(0))  # it was fused to what stands in front of its layer
        for name in names:
            for token in _NAME.findall(name):
                if token in self._bucket_of:
                    return self._bucket_of[token]
        if layer["name"] in self._unnamed:
            return self._unnamed[layer["name"]]
        bucket = self._union(self._sources(layer))
        return bucket if bucket[0] and bucket in self._members else last

    def _sources(self, layer: Layer) -> list[str]:
        names = layer["original"] or [layer["name"]]
        tokens = [token for name in names for token in _NAME.findall(name)[:1]]
        return [token for token in dict.fromkeys(tokens) if token in self._graph]

    def _union(self, nodes: Iterable[str]) -> Bucket:
        members = list(nodes)
        found = {name for node in members for name in self._network.structures_of(node)}
        sites = [self._site_of[node] for node in members if node in self._site_of]
        return tuple(sorted(found, key=self._order.__getitem__)), sites[0] if sites else ""

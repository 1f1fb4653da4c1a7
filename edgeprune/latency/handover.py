"""What layers of different formats pay for each other: conversions of values and layouts.

Their time depends on both formats and on the values that are handed over, and on nothing else of
the layers. A profile shows them as layers of their own, and what of them runs inside of the layers
is found by comparing (:mod:`edgeprune.latency.context`).
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgeprune.formats import DENSE, Formats
from edgeprune.graph.sites import Site, sources
from edgeprune.latency.attribution import Part
from edgeprune.latency.axis import Axis, axes_of
from edgeprune.latency.surface import Surface, fit_surface

if TYPE_CHECKING:
    from edgeprune.graph.network import Network

Floats = npt.NDArray[np.float64]
# Families of the two layers, the number of dimensions of what is handed over, and whether values
# of other layers are added in between.
HandoverKind = tuple[str, str, int, bool]

_NOISE = 0.1


@dataclass(frozen=True)
class Handover:
    """The values that a site reads.

    Attributes:
        target: The site.
        source: The last site before it on the way of the values; empty where none is.
        axes: Sizes of their tensor.
        joined: Whether several layers' values come together in them.
    """

    target: Site
    source: Site | None
    axes: tuple[Axis, ...]
    joined: bool

    def elements(self, levels: Mapping[str, int]) -> int:
        """How many values are handed over."""
        return math.prod(axis.size(levels) for axis in self.axes)

    def kind(self, formats: Formats, source: Site | None) -> HandoverKind:
        """What converts; ``source`` may be an earlier site where this one's is emptied."""
        families = _family(source, formats, -1), _family(self.target, formats, 0)
        return *families, len(self.axes), self.joined


def _family(site: Site | None, formats: Formats, place: int) -> str:
    if site is None:
        return DENSE.family
    return formats.get(site.layers[place], DENSE).family


@dataclass(frozen=True)
class Handovers:
    """All handovers of a network, by target, with the sites that a variant may empty.

    Attributes:
        by_target: Handovers by the target's name.
        sides: The sizes of every site's weights; a site of which one is zero is gone.
    """

    by_target: Mapping[str, Handover]
    sides: Mapping[str, tuple[Axis, ...]]

    def source(self, handover: Handover, levels: Mapping[str, int]) -> Site | None:
        """The last site before the target that the levels leave standing."""
        site = handover.source
        while site is not None and self._gone(site, levels):
            before = self.by_target.get(site.name)
            site = None if before is None else before.source
        return site

    def standing(self, levels: Mapping[str, int]) -> list[Handover]:
        """The handovers whose target the levels leave standing."""
        return [h for h in self.by_target.values() if not self._gone(h.target, levels)]

    def _gone(self, site: Site, levels: Mapping[str, int]) -> bool:
        return any(axis.size(levels) == 0 for axis in self.sides.get(site.name, ()))


def find_handovers(
    network: "Network", sites: Mapping[str, Site], parts: Sequence[Part]
) -> Handovers:
    """What every site of a network reads, and from which site.

    Args:
        network: The analysed network.
        sites: Its sites by name.
        parts: All parts of the network; those of sites know the sizes of their weights.
    """
    graph = {node.name: node for node in network.captured.module.graph.nodes}
    source_of = sources(network.captured.module, sites.values())
    by_target = {}
    for name, site in sites.items():
        (shape, *_) = network.shapes(graph[site.layers[0]].args[0].name)
        by_target[name] = Handover(
            target=site,
            source=sites.get(source_of[name].site),
            axes=tuple(axis for dim in shape for axis in axes_of(dim)),
            joined=source_of[name].joined,
        )
    sides = {
        part.bucket[1]: tuple(side for weight in part.weights for side in weight.sides)
        for part in parts
        if part.bucket[1]
    }
    return Handovers(by_target, sides)


def fit_handovers(
    handovers: Handovers,
    levels: Sequence[Mapping[str, int]],
    formats: Sequence[Formats],
    profiles: Sequence[Sequence[Mapping[str, float]]],
) -> dict[HandoverKind, Surface]:
    """The time of every kind of handover by the number of elements.

    Args:
        handovers: Of the network.
        levels: Of each variant, as the others.
        formats: Of the layers that are not dense.
        profiles: Microseconds by target in each profile; nothing where nothing is paid.
    """
    samples: dict[HandoverKind, list[tuple[int, float]]] = defaultdict(list)
    for chosen, found, times in zip(levels, formats, profiles, strict=True):
        for handover in handovers.standing(chosen):
            kind = handover.kind(found, handovers.source(handover, chosen))
            elements = handover.elements(chosen)
            samples[kind] += [(elements, us.get(handover.target.name, 0.0)) for us in times]
    surfaces = {}
    for kind, rows in samples.items():
        elements, us = np.array(rows, np.float64).T
        # Whether anything is converted may depend on a third layer, so what counts is the mean.
        surfaces[kind] = fit_surface(
            elements.astype(np.int64)[:, None],
            us,
            np.full(len(us), _NOISE),
            stepped=False,
            mean=True,
        )
    return surfaces


def handover_us(
    handovers: Handovers,
    surfaces: Mapping[HandoverKind, Surface],
    levels: Mapping[str, int],
    formats: Formats,
) -> float:
    """Microseconds of all handovers of a variant."""
    points: dict[HandoverKind, list[int]] = defaultdict(list)
    for handover in handovers.standing(levels):
        kind = handover.kind(formats, handovers.source(handover, levels))
        points[kind].append(handover.elements(levels))
    return float(sum(predict_us(surfaces, kind, p).sum() for kind, p in points.items()))


def predict_us(
    surfaces: Mapping[HandoverKind, Surface], kind: HandoverKind, elements: Sequence[int]
) -> Floats:
    """Microseconds of a kind of handover at numbers of elements.

    A kind that no variant had takes as long as the dearest one to the same format, lest a search
    be drawn to what was never measured.
    """
    points = np.array(elements, np.int64)[:, None]
    if kind in surfaces:
        return surfaces[kind].predict(points)
    alike = [surface for known, surface in surfaces.items() if known[1:3] == kind[1:3]]
    if not alike or kind[0] == kind[1]:
        return np.zeros(len(points))
    return np.asarray(np.max([surface.predict(points) for surface in alike], axis=0))

"""What layers take longer where a neighbour has another format.

Beside a conversion of its own, a change of formats costs inside of the layers around it: one fuses
the rounding that the next one wants, reads a layout that is not its own, or leaves an addition that
would have been fused. Surfaces by kind and format average over that, which makes uniform plans look
slow and mixed ones fast. So it is measured as what is left over of the surfaces, by the formats on
both sides, and moved from the layers to the handover between them.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeprune.latency.attribution import Part
from edgeprune.latency.handover import Handover, HandoverKind, Handovers
from edgeprune.latency.profiled_variant import Kind, Variant
from edgeprune.latency.signature import Bucket
from edgeprune.latency.surface import Surface

Surfaces = dict[Kind, Surface]

# The more is moved the lower the surfaces, and the more is left over; twice is nearly all.
_ROUNDS = 2


def fit_in_context(
    parts: Sequence[Part],
    handovers: Handovers,
    variants: Sequence[Variant],
    fit_surfaces: Callable[[Sequence[Part], Sequence[Variant]], Surfaces],
) -> tuple[Surfaces, list[Variant]]:
    """Surfaces of the parts among their like, and variants that charge the rest to handovers.

    Args:
        parts: All buckets of the network.
        handovers: What its sites read.
        variants: Whose profiles add up to their whole times.
        fit_surfaces: Fits a surface for every kind of part and family of formats.

    Returns:
        The surfaces, and the variants with time moved from profiles to conversions; a variant's
        sum stays what it was.
    """
    neighbours = _Neighbours(parts, handovers)
    surfaces, moved = fit_surfaces(parts, variants), list(variants)
    for _ in range(_ROUNDS if neighbours.sites else 0):
        contexts = _fit(neighbours, variants, surfaces)
        moved = [neighbours.moved(variant, contexts) for variant in variants]
        surfaces = fit_surfaces(parts, moved)
    return surfaces, moved


@dataclass(frozen=True)
class _Contexts:
    """Microseconds that a change of formats costs in the layer behind it and in that before it."""

    behind_us: Mapping[HandoverKind, float]
    before_us: Mapping[HandoverKind, float]


class _Neighbours:
    """The parts on both sides of each handover."""

    def __init__(self, parts: Sequence[Part], handovers: Handovers) -> None:
        self._handovers = handovers
        self.sites = {part.bucket[1]: part for part in parts if part.bucket[1]}

    def of(self, variant: Variant) -> list[tuple[HandoverKind, Handover, Part, Part | None]]:
        """Each standing handover: its kind, the part behind it and that before it, if any."""
        found = []
        for handover in self._handovers.standing(variant.levels):
            source = self._handovers.source(handover, variant.levels)
            before = self.sites.get(source.name) if source is not None else None
            behind = self.sites[handover.target.name]
            found.append((handover.kind(variant.formats, source), handover, behind, before))
        return found

    def moved(self, variant: Variant, contexts: _Contexts) -> Variant:
        """The variant with the contexts' time moved from its layers to its conversions."""
        wanted: list[tuple[Bucket, str, float]] = []
        for kind, handover, behind, before in self.of(variant):
            name = handover.target.name
            wanted.append((behind.bucket, name, contexts.behind_us.get(kind, 0.0)))
            if before is not None:
                wanted.append((before.bucket, name, contexts.before_us.get(kind, 0.0)))
        profiles, conversions = [], []
        for profile, converted in variant.timed:
            profiles.append(left := dict(profile))
            conversions.append(charged := dict(converted))
            for bucket, name, us in wanted:
                taken = min(us, left.get(bucket, 0.0))
                if taken > 0:
                    left[bucket] -= taken
                    charged[name] = charged.get(name, 0.0) + taken
        return replace(variant, profiles=tuple(profiles), conversions=tuple(conversions))


def _fit(neighbours: _Neighbours, variants: Sequence[Variant], surfaces: Surfaces) -> _Contexts:
    """What is left over of the surfaces, first by what a layer reads, then by its reader."""
    behind: dict[HandoverKind, list[float]] = defaultdict(list)
    rests = []
    for variant in variants:
        left = {
            name: _left_over_us(variant, part, surfaces) for name, part in neighbours.sites.items()
        }
        rests.append(left)
        for kind, handover, _, _ in neighbours.of(variant):
            behind[kind].append(left[handover.target.name])
    behind_us = _mean_of_changes(behind)
    before: dict[HandoverKind, list[float]] = defaultdict(list)
    for variant, left in zip(variants, rests, strict=True):
        found = neighbours.of(variant)
        for kind, handover, _, _ in found:
            left[handover.target.name] -= behind_us[kind]
        for kind, _, _, part in found:
            if part is not None:
                before[kind].append(left[part.bucket[1]])
    return _Contexts(behind_us, _mean_of_changes(before))


def _left_over_us(variant: Variant, part: Part, surfaces: Surfaces) -> float:
    """How much longer a part takes than its surface says; 0 where leftovers blur it."""
    if part.bucket in variant.leftovers or variant.gone(part):
        return 0.0
    us = float(np.mean([profile.get(part.bucket, 0.0) for profile in variant.profiles]))
    return us - float(surfaces[variant.kind(part)].predict(np.array([variant.sizes(part)]))[0])


def _mean_of_changes(samples: Mapping[HandoverKind, Sequence[float]]) -> dict[HandoverKind, float]:
    """Beside its like a layer takes what its surface says: that is what surfaces are for."""
    return {
        kind: 0.0 if kind[0] == kind[1] else max(float(np.mean(us)), 0.0)
        for kind, us in samples.items()
    }

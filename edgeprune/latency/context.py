"""What layers take longer where a neighbour has another format.

Beside a conversion of its own, a change of formats costs inside of the layers around it: one fuses
the rounding that the next one wants, reads a layout that is not its own, or leaves an addition that
would have been fused. Surfaces by kind and format average over that, which makes uniform plans look
slow and mixed ones fast. So it is fitted to what is left over of the surfaces, by the formats on
both sides, and moved from the layers to the handover between them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeprune.latency.attribution import Part
from edgeprune.latency.handover import HandoverKind, Handovers
from edgeprune.latency.part_surfaces import fit_surfaces, part_us
from edgeprune.latency.profiled_variant import Kind, Variant
from edgeprune.latency.surface import Surface

# A kind of handover, and whether it is the side that reads.
_Column = tuple[HandoverKind, bool]
# A column, or a family of formats and the sign of its offset.
_Term = _Column | tuple[str, str]

# The more is moved the lower the surfaces, and the more is left over; twice is nearly all.
_ROUNDS = 2


def fit_in_context(
    parts: Sequence[Part], handovers: Handovers, variants: Sequence[Variant]
) -> tuple[dict[Kind, Surface], list[Variant]]:
    """Surfaces of the parts among their like, and variants that charge the rest to handovers.

    Args:
        parts: All buckets of the network.
        handovers: What its sites read.
        variants: Whose profiles add up to their whole times.

    Returns:
        The surfaces, and the variants with time moved from profiles to conversions; a variant's
        sum stays what it was.
    """
    of_site: dict[str, list[Part]] = defaultdict(list)
    for part in parts:
        if part.bucket[1]:
            of_site[part.bucket[1]].append(part)
    surfaces, relieved = fit_surfaces(parts, variants), list(variants)
    changes = [list(_changes(handovers, variant)) for variant in variants]
    for _ in range(_ROUNDS if any(changes) else 0):
        costs_us = _fit_costs(of_site, variants, changes, surfaces)
        relieved = [
            _relieved(of_site, variant, found, costs_us)
            for variant, found in zip(variants, changes, strict=True)
        ]
        surfaces = fit_surfaces(parts, relieved)
    return surfaces, relieved


@dataclass(frozen=True)
class _Side:
    """One side of a handover between different formats.

    Attributes:
        column: What it has in common with others.
        site: The site whose layers take longer.
        target: The site that reads.
        share: Of the time; a site that several read pays it once.
    """

    column: _Column
    site: str
    target: str
    share: float


def _changes(handovers: Handovers, variant: Variant) -> Iterator[_Side]:
    """Both sides of every handover of a variant at which the family of formats changes."""
    standing = handovers.standing(variant.levels)
    found = [(h, handovers.source(h, variant.levels)) for h in standing]
    readers = Counter(source.name for _, source in found if source is not None)
    for handover, source in found:
        kind, target = handover.kind(variant.formats, source), handover.target.name
        if kind[0] == kind[1]:
            continue
        yield _Side((kind, True), target, target, 1.0)
        if source is not None:
            yield _Side((kind, False), source.name, target, 1.0 / readers[source.name])


def _fit_costs(
    of_site: Mapping[str, Sequence[Part]],
    variants: Sequence[Variant],
    changes: Sequence[Sequence[_Side]],
    surfaces: Mapping[Kind, Surface],
) -> dict[_Column, float]:
    """Microseconds of each side of each kind of change, all at once and none negative.

    Surfaces are too high by what they average over, so each family has an offset of its own.
    """
    from scipy.optimize import nnls

    rows: list[dict[_Term, float]] = []
    rests_us = []
    for variant, sides in zip(variants, changes, strict=True):
        terms: dict[str, dict[_Term, float]] = defaultdict(dict)
        for side in sides:
            of_one = terms[side.site]
            of_one[side.column] = of_one.get(side.column, 0.0) + side.share
        for site, parts in of_site.items():
            if not any(_is_without(variant, part) for part in parts):
                family = variant.kind(parts[0])[1]
                rows.append({**terms[site], (family, "above"): 1.0, (family, "below"): -1.0})
                rests_us.append(_rest_us(variant, parts, surfaces))
    if not rows:
        return {}
    place = {name: i for i, name in enumerate(dict.fromkeys(name for row in rows for name in row))}
    matrix = np.zeros((len(rows), len(place)))
    for number, row in enumerate(rows):
        for name, value in row.items():
            matrix[number, place[name]] = value
    found, _ = nnls(matrix, np.array(rests_us))
    known = {side.column for sides in changes for side in sides if side.column in place}
    return {column: float(found[place[column]]) for column in known}


def _is_without(variant: Variant, part: Part) -> bool:
    """Whether a part's time in a variant is not that of its own sizes."""
    return part.bucket in variant.leftovers or variant.gone(part) or variant.unread(part)


def _rest_us(variant: Variant, parts: Sequence[Part], surfaces: Mapping[Kind, Surface]) -> float:
    """How much longer the parts of a site take than their surfaces say."""
    rest = 0.0
    for part in parts:
        us = [profile.get(part.bucket, 0.0) for profile in variant.profiles]
        rest += float(np.mean(us)) - part_us(surfaces, variant, part)
    return rest


def _relieved(
    of_site: Mapping[str, Sequence[Part]],
    variant: Variant,
    sides: Sequence[_Side],
    costs_us: Mapping[_Column, float],
) -> Variant:
    """The variant with the costs of its changes moved from its layers to its conversions."""
    profiles, conversions = [], []
    for profile, converted in variant.timed:
        profiles.append(left := dict(profile))
        conversions.append(charged := dict(converted))
        for side in sides:
            us = side.share * costs_us.get(side.column, 0.0)
            for part in of_site.get(side.site, ())[:1]:  # which of several does not matter
                taken = min(us, left.get(part.bucket, 0.0))
                left[part.bucket] = left.get(part.bucket, 0.0) - taken
                charged[side.target] = charged.get(side.target, 0.0) + taken
    return replace(variant, profiles=tuple(profiles), conversions=tuple(conversions))

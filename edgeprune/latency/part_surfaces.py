"""A surface for every kind of part, from the profiles of measured variants."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgeprune.latency.attribution import Part
from edgeprune.latency.profiled_variant import DENSE_FAMILIES, Kind, Variant
from edgeprune.latency.surface import Surface, fit_surface

# Relative error of a part's time in one profile, and what disturbance adds to it.
_PROFILE_NOISE = 0.03
_DISTURBED_NOISE = 0.3
# Sizes of a part, its microseconds, and the relative error to expect.
_Sample = tuple[list[int], float, float]


def fit_surfaces(parts: Sequence[Part], variants: Sequence[Variant]) -> dict[Kind, Surface]:
    """A surface for every kind of part and family of formats, from all parts of that kind.

    A part that runs what is left of an emptied structure tells nothing of its own sizes where
    others of its kind are without, and one that is not run tells nothing at all. A part that is
    itself emptied has no format any more; whether what it leaves is a step of its own depends on
    its neighbours, so that is fitted on the mean.
    """
    alive: dict[Kind, list[_Sample]] = defaultdict(list)
    burdened: dict[Kind, list[_Sample]] = defaultdict(list)
    gone: dict[str, list[_Sample]] = defaultdict(list)
    axes: dict[Kind, int] = {}
    for variant in variants:
        for profile, disturbed in zip(variant.profiles, variant.disturbed, strict=True):
            noise = _PROFILE_NOISE + _DISTURBED_NOISE * max(disturbed - 1, 0)
            for part in parts:
                kind, us = variant.kind(part), profile.get(part.bucket, 0.0)
                axes[kind] = len(part.axes)
                if variant.gone(part):
                    gone[part.kind].append((part.sizes(variant.levels), us, noise))
                    continue
                if variant.unread(part):
                    continue
                chosen = burdened if part.bucket in variant.leftovers else alive
                chosen[kind].append((variant.sizes(part), us, noise))
    left = {name: _surface(rows, stepped=False, mean=True) for name, rows in gone.items()}
    surfaces = {}
    for kind, count in axes.items():
        rows = alive.get(kind) or burdened.get(kind)
        surface = _surface(rows, stepped=kind[1] in DENSE_FAMILIES) if rows else Surface({})
        surfaces[kind] = replace(surface, left=left.get(kind[0]), axes=count)
    return surfaces


def _surface(rows: Sequence[_Sample], *, stepped: bool, mean: bool = False) -> Surface:
    sizes, us, noise = zip(*rows, strict=True)
    points = np.array(sizes, np.int64).reshape(len(rows), -1)
    return fit_surface(points, np.array(us), np.array(noise), stepped=stepped, mean=mean)


def part_us(surfaces: Mapping[Kind, Surface], variant: Variant, part: Part) -> float:
    """What the surfaces say that a part takes in a variant."""
    return float(surfaces[variant.kind(part)].predict(np.array([variant.sizes(part)]))[0])

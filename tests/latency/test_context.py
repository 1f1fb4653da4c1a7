"""Layers beside others of another format take longer, and only a plan that mixes pays for it."""

from itertools import pairwise

import numpy as np
import pytest

from edgeprune.formats import DENSE_INT8, Formats
from edgeprune.graph.sites import Site
from edgeprune.latency.attribution import Part, Weight
from edgeprune.latency.axis import Axis
from edgeprune.latency.context import fit_in_context
from edgeprune.latency.fit import fit_surfaces
from edgeprune.latency.handover import Handover, Handovers, fit_handovers, handover_us
from edgeprune.latency.profiled_variant import Variant

LAYERS = tuple(f"layer{i}" for i in range(12))
SITES = [Site(f"{name}@format", (name,)) for name in LAYERS]
SIZES = (16, 32, 48, 64)


def axis(name: str) -> Axis:
    return Axis(0, ((f"{name}:width", 1),))


PARTS = [
    Part(((f"{name}:width",), f"{name}@format"), "layer", (axis(name),), (Weight(name, ()),))
    for name in LAYERS
]
HANDOVERS = Handovers(
    {
        site.name: Handover(site, source, (), joined=False)
        for site, source in zip(SITES, [None, *SITES], strict=False)
    },
    {site.name: (axis(site.layers[0]),) for site in SITES},
)
# What a change to int8 and back costs: in the layer before, between, in the layer behind.
TO_INT8, TO_DENSE = (0.8, 1.0, 0.0), (0.0, 0.0, 2.0)
NEIGHBOURS = list(pairwise(LAYERS))


def times(
    levels: dict[str, int], formats: Formats
) -> tuple[dict[str, float], dict[str, float], float]:
    """Of the layers, of the conversions by site, and what the layers take among their like."""
    layers = {
        name: (4.0 + 0.1 * levels[f"{name}:width"]) if name in formats else 6.0 for name in LAYERS
    }
    alone, between = sum(layers.values()), {}
    for before, behind in [("", LAYERS[0]), *NEIGHBOURS]:
        if (before in formats) == (behind in formats):
            continue
        first, conversion, second = TO_INT8 if behind in formats else TO_DENSE
        if before:
            layers[before] += first
        layers[behind] += second
        between[f"{behind}@format"] = conversion
    return layers, between, alone


def variant(random: np.random.Generator, int8: float) -> Variant:
    """Of random sizes, each layer in int8 with a probability."""
    levels = {f"{name}:width": int(random.choice(SIZES)) for name in LAYERS}
    formats: Formats = {name: DENSE_INT8 for name in LAYERS if random.random() < int8}
    layers, between, _ = times(levels, formats)
    profile = {part.bucket: layers[part.weights[0].layer] for part in PARTS}
    total_us = sum(profile.values()) + sum(between.values())
    return Variant(levels, (profile,), (1.0,), total_us, formats, (between,))


def variants(seed: int) -> list[Variant]:
    random = np.random.default_rng(seed)
    return [variant(random, share) for share in (0.0, 0.5, 1.0) for _ in range(20)]


def predicted_us(fitted: list[Variant], asked: Variant) -> tuple[float, float]:
    """Of the layers, and of the handovers."""
    surfaces, moved = fit_in_context(PARTS, HANDOVERS, fitted, fit_surfaces)
    layers = sum(
        float(surfaces[asked.kind(part)].predict(np.array([asked.sizes(part)]))[0])
        for part in PARTS
    )
    converting = fit_handovers(
        HANDOVERS,
        [v.levels for v in moved],
        [v.formats for v in moved],
        [v.conversions for v in moved],
    )
    return layers, handover_us(HANDOVERS, converting, asked.levels, asked.formats)


@pytest.mark.parametrize("int8", [0.0, 0.3, 0.7, 1.0])
def test_only_changes_of_formats_are_charged_for_them(int8: float) -> None:
    random = np.random.default_rng(5)
    fitted = variants(0)
    for _ in range(4):
        asked = variant(random, int8)
        layers_us, changes_us = predicted_us(fitted, asked)
        alone_us = times(asked.levels, asked.formats)[2]
        assert layers_us == pytest.approx(alone_us, rel=0.02)
        assert layers_us + changes_us == pytest.approx(asked.total_us, rel=0.02)


def test_a_variant_still_adds_up() -> None:
    fitted = variants(1)
    for before, after in zip(
        fitted, fit_in_context(PARTS, HANDOVERS, fitted, fit_surfaces)[1], strict=True
    ):
        (profile,), (conversions,) = after.profiles, after.conversions
        assert sum(profile.values()) + sum(conversions.values()) == pytest.approx(before.total_us)
        assert min(profile.values()) >= 0


def test_without_sites_nothing_is_moved() -> None:
    parts = [Part(p.bucket, p.kind, p.axes) for p in PARTS]
    bare = [Part((part.bucket[0], ""), part.kind, part.axes) for part in parts]
    given = [
        Variant(v.levels, ({(b[0], ""): us for b, us in v.profiles[0].items()},), (1.0,), 1.0)
        for v in variants(2)
    ]
    assert fit_in_context(bare, Handovers({}, {}), given, fit_surfaces)[1] == given

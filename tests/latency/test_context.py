"""Layers beside others of another format take longer, and only a plan that mixes pays for it."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from edgeprune.formats import DENSE_INT8, Formats
from edgeprune.graph.sites import Site
from edgeprune.latency.attribution import Part, Weight
from edgeprune.latency.axis import Axis
from edgeprune.latency.context import fit_in_context
from edgeprune.latency.handover import Handover, Handovers, fit_handovers, handover_us
from edgeprune.latency.part_surfaces import part_us
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


def variants(seed: int, *shares: float) -> list[Variant]:
    random = np.random.default_rng(seed)
    return [variant(random, share) for share in shares for _ in range(20)]


def predicted_us(
    fitted: list[Variant], asked: Variant, handovers: Handovers = HANDOVERS
) -> tuple[float, float]:
    """Of the layers, and of the handovers."""
    surfaces, moved = fit_in_context(PARTS, handovers, fitted)
    layers = sum(part_us(surfaces, asked, part) for part in PARTS)
    converting = fit_handovers(
        handovers,
        [v.levels for v in moved],
        [v.formats for v in moved],
        [v.conversions for v in moved],
    )
    return layers, handover_us(handovers, converting, asked.levels, asked.formats)


@pytest.mark.parametrize("int8", [0.0, 0.3, 0.7, 1.0])
def test_only_changes_of_formats_are_charged_for_them(int8: float) -> None:
    """Also where nearly every layer that was measured stood beside one of the other format."""
    random = np.random.default_rng(5)
    fitted = variants(0, 0.4, 0.5, 0.6)
    for _ in range(4):
        asked = variant(random, int8)
        layers_us, changes_us = predicted_us(fitted, asked)
        alone_us = times(asked.levels, asked.formats)[2]
        assert layers_us == pytest.approx(alone_us, rel=0.02)
        assert layers_us + changes_us == pytest.approx(asked.total_us, rel=0.02)


def test_a_variant_still_adds_up() -> None:
    fitted = variants(1, 0.0, 0.5, 1.0)
    relieved = fit_in_context(PARTS, HANDOVERS, fitted)[1]
    for before, after in zip(fitted, relieved, strict=True):
        (profile,), (conversions,) = after.profiles, after.conversions
        assert sum(profile.values()) + sum(conversions.values()) == pytest.approx(before.total_us)
        assert min(profile.values()) >= 0
        mixed = 0 < len(before.formats) < len(LAYERS)
        assert (sum(conversions.values()) > sum(before.conversions[0].values()) + 0.1) == mixed


def test_layers_that_carry_leftovers_say_nothing_of_changes() -> None:
    random = np.random.default_rng(3)
    fitted = []
    for v in variants(3, 0.0, 0.4, 0.6, 1.0):
        changed = {b for a, b in NEIGHBOURS if (a in v.formats) != (b in v.formats)}
        behind = [part.bucket for part in PARTS if part.weights[0].layer in changed]
        burdened = [bucket for bucket in behind if random.random() < 0.5]
        slower = {b: us + 5.0 * (b in burdened) for b, us in v.profiles[0].items()}
        fitted.append(replace(v, profiles=(slower,), leftovers=dict.fromkeys(burdened, ("gone",))))
    for share in (0.0, 0.5, 1.0):
        asked = variant(random, share)
        assert sum(predicted_us(fitted, asked)) == pytest.approx(asked.total_us, rel=0.03)


def test_what_several_read_is_charged_once_in_all() -> None:
    """The last eleven layers all read the first one, which rounds what it makes for them."""
    first, *others = SITES
    by_target = {
        site.name: Handover(site, first if site is not first else None, (), joined=False)
        for site in SITES
    }
    handovers = Handovers(by_target, HANDOVERS.sides)
    random, given = np.random.default_rng(4), []
    for v in variants(4, 0.0, 0.5, 1.0):
        formats = {s.layers[0]: DENSE_INT8 for s in others} if random.random() < 0.5 else {}
        profile = {p.bucket: 4.0 if p.weights[0].layer in formats else 6.0 for p in PARTS}
        profile[PARTS[0].bucket] += 1.5 * bool(formats)
        given.append(Variant(v.levels, (profile,), (1.0,), sum(profile.values()), formats))
    for asked in given:
        layers_us, changes_us = predicted_us(given, asked, handovers)
        assert layers_us + changes_us == pytest.approx(asked.total_us, rel=0.01)
        assert changes_us == pytest.approx(1.5 * bool(asked.formats), abs=0.1)


def test_a_site_that_the_runtime_runs_with_another_has_no_part() -> None:
    given = variants(6, 0.5)
    surfaces, relieved = fit_in_context(PARTS[:5] + PARTS[6:], HANDOVERS, given)
    assert surfaces and len(relieved) == len(given)


def test_without_sites_nothing_is_moved() -> None:
    bare = [Part((part.bucket[0], ""), part.kind, part.axes) for part in PARTS]
    given = [
        Variant(v.levels, ({(b[0], ""): us for b, us in v.profiles[0].items()},), (1.0,), 1.0)
        for v in variants(2, 0.5)
    ]
    assert fit_in_context(bare, Handovers({}, {}), given)[1] == given


def test_sites_that_are_nowhere_run_alone_say_nothing_of_changes() -> None:
    """As where the runtime makes one operator of a recurrent layer and what surrounds it."""
    bare = [Part((part.bucket[0], ""), part.kind, part.axes) for part in PARTS]
    given = [
        replace(v, profiles=({(b[0], ""): us for b, us in v.profiles[0].items()},))
        for v in variants(5, 0.5)
    ]
    surfaces, relieved = fit_in_context(bare, HANDOVERS, given)
    assert surfaces and relieved == given

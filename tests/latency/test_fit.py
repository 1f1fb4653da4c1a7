"""From measured variants to a model: what a coarse clock hides comes back from whole times."""

import numpy as np
import pytest

from edgeprune.formats import DENSE, DENSE_INT8, Format
from edgeprune.graph.choices import Choices
from edgeprune.graph.sites import Site
from edgeprune.latency.attribution import Part, Weight
from edgeprune.latency.axis import Axis
from edgeprune.latency.correction import fit_correction
from edgeprune.latency.design import design_variants, design_whole
from edgeprune.latency.fit import fit_model
from edgeprune.latency.handover import Handovers
from edgeprune.latency.profiled_variant import Variant

LEVELS = (0, 8, 16, 24, 32, 40, 48, 56, 64)
NAMES = tuple(f"block{i}" for i in range(16))
OFFERED = dict.fromkeys(NAMES, LEVELS)
FULL = dict.fromkeys(NAMES, 64)
ALIKE = dict.fromkeys(NAMES, "block")
# Layers of a few microseconds, of which a clock of whole ones shows little but steps.
TRUE_US = dict(zip(LEVELS, (0.0, 3.1, 3.4, 3.9, 4.9, 5.05, 5.3, 6.7, 6.95), strict=True))


def whole_us(levels: dict[str, int]) -> float:
    return 20.5 + sum(TRUE_US[level] for level in levels.values())


def variant(levels: dict[str, int], random: np.random.Generator) -> Variant:
    profile = {
        ((name,), ""): np.floor(TRUE_US[level]) + 0.5 for name, level in levels.items() if level
    }
    noisy = whole_us(levels) * (1 + 0.003 * random.standard_normal())
    return Variant(levels, ({((), ""): 20.5, **profile},), (1.0,), noisy)


def test_a_coarse_clock_is_corrected_by_whole_times() -> None:
    random = np.random.default_rng(0)
    parts = [
        Part(((), ""), "rest", ()),
        *(Part(((name,), ""), "block", (Axis(0, ((name, 1),)),)) for name in NAMES),
    ]
    variants = [variant(levels, random) for levels in design_variants(OFFERED, ALIKE, 40)]
    model = fit_model(parts, Handovers({}, {}), variants, Choices(OFFERED), ALIKE, FULL)
    plans = [{name: int(random.choice(LEVELS[1:])) for name in NAMES} for _ in range(40)]
    errors = [abs(1e3 * model.total_ms(plan) / whole_us(plan) - 1) for plan in plans]
    assert np.median(errors) < 0.006
    assert max(errors) < 0.02
    assert model.figures["correction_hidden_us"] > 0


def test_leftovers_of_emptied_structures_are_counted_once() -> None:
    """What is left of an emptied block runs inside of the block in front of it."""
    random = np.random.default_rng(0)
    left_us, names = 2.0, list(NAMES)

    def of(levels: dict[str, int]) -> Variant:
        profile, leftovers = {((), ""): 20.5}, {}
        last: tuple[tuple[str, ...], str] = ((), "")
        for name in names:
            if levels[name]:
                last = ((name,), "")
                profile[last] = 3.0 + 0.1 * levels[name]
            else:
                profile[last] += left_us
                leftovers[last] = [*leftovers.get(last, []), name]
        return Variant(levels, (profile,), (1.0,), sum(profile.values()), leftovers=leftovers)

    parts = [
        Part(((), ""), "rest", ()),
        *(Part(((name,), ""), "block", (Axis(0, ((name, 1),)),)) for name in NAMES),
    ]
    variants = [of(levels) for levels in design_variants(OFFERED, ALIKE, 40)]
    model = fit_model(parts, Handovers({}, {}), variants, Choices(OFFERED), ALIKE, FULL)
    for gone in (0, 4, 8, 12):
        levels = [0] * gone + [int(random.choice(LEVELS[1:])) for _ in NAMES[gone:]]
        plan = dict(zip(random.permutation(NAMES), levels, strict=True))
        plan = {str(name): level for name, level in plan.items()}
        assert abs(1e3 * model.total_ms(plan) / of(plan).total_us - 1) < 0.01


def test_no_variant_is_left_with_nothing() -> None:
    variants = design_variants(OFFERED, ALIKE, 40)
    assert all(any(levels.values()) for levels in variants)
    assert variants[0] == FULL


def test_a_tiny_variant_unlike_all_others_spoils_nothing() -> None:
    random = np.random.default_rng(1)
    shares = np.append(random.uniform(0.15, 1.0, 30), 0.04)
    kind_us = shares[:, None] * np.array([4000.0, 1500.0, 500.0]) * random.uniform(0.7, 1, (31, 3))
    kind_terms = np.stack([kind_us, np.ones_like(kind_us), kind_us / 4000.0], axis=2)
    sums_us = kind_us.sum(axis=1)
    measured_us = sums_us * (1 + 0.005 * random.standard_normal(31))
    measured_us[-1] *= 1.5
    none = np.zeros((31, 0))
    typical_us = np.array([500.0, 200.0, 60.0])
    correction = fit_correction(kind_terms, typical_us, none, none, measured_us, np.zeros(31))
    corrected = sums_us + np.einsum("vkt,kt->v", kind_terms, correction.terms)
    c, a, b = correction.quadratic
    errors = np.abs((c + a * corrected + b * corrected**2) / sums_us - 1)[:-1]
    assert max(errors) < 0.015


@pytest.mark.parametrize("seed", range(5))
def test_the_errors_told_are_those_of_what_is_predicted(seed: int) -> None:
    """Where times come from elsewhere, no kind is corrected to take less than nothing."""
    random = np.random.default_rng(seed)
    kind_us = random.uniform(5, 100, (40, 30)) * (random.random((40, 30)) < 0.7)
    there = (kind_us > 0).astype(float)
    kind_terms = np.stack([kind_us, there, there * random.random((40, 30))], axis=2)
    measured_us = kind_us.sum(axis=1) + 800.0 * (random.random(40) < 0.4)
    none = np.zeros((40, 0))
    correction = fit_correction(
        kind_terms, np.full(30, 50.0), none, none, measured_us, np.zeros(40)
    )
    changed = kind_us + np.einsum("vkt,kt->vk", kind_terms, correction.terms)
    corrected = np.maximum(changed, 0.0).sum(axis=1)
    c, a, b = correction.quadratic
    errors = np.abs((c + a * corrected + b * corrected**2) / measured_us - 1)
    assert np.all(errors <= correction.left_out + 1e-9)


def test_networks_of_full_size_are_measured_in_every_family_and_mixed() -> None:
    sites = {f"site{i}": Site(f"site{i}", (f"layer{i}",)) for i in range(8)}
    families, sparsities = ["int8", "int8-16x4", "f32-4x1"], (0.5, 0.7, 0.9)
    options = {name: site.options(families, sparsities) for name, site in sites.items()}
    choices = Choices(OFFERED, sites, options)
    dense = {**FULL, **dict.fromkeys(sites, 0)}
    whole = design_whole(choices, dense)
    found = [{f.family for f in choices.formats_of(plan).values()} or {"dense"} for plan in whole]
    assert all(choices.levels_of(plan) == FULL for plan in whole)
    assert {next(iter(f)) for f in found[:4]} == {"dense", *families}
    assert max(len(f) for f in found[:4]) == 1
    assert all(len(f) > 1 for f in found[4:])
    assert not design_whole(Choices(OFFERED), FULL)


def test_what_an_emptied_layer_leaves_does_not_depend_on_its_format() -> None:
    """Which it has makes no difference once it is gone, whatever a few variants seem to say."""
    random = np.random.default_rng(1)
    sites = {f"{name}@format": Site(f"{name}@format", (name,)) for name in NAMES}
    options = dict.fromkeys(sites, ((DENSE,), (DENSE_INT8,)))
    choices = Choices(OFFERED, sites, options)
    axes = {name: Axis(0, ((name, 1),)) for name in NAMES}
    weights = {name: (Weight(name, (axes[name],)),) for name in NAMES}
    parts = [
        Part(((), ""), "rest", ()),
        *(Part(((n,), f"{n}@format"), "block", (axes[n],), weights[n]) for n in NAMES),
    ]
    places = dict.fromkeys(sites, (0, 1))

    def of(levels: dict[str, int]) -> Variant:
        formats = choices.formats_of(levels)
        profile = {((), ""): 20.5}
        for name in NAMES:
            alive_us = (2.0 if name in formats else 3.0) + 0.1 * levels[name]
            left_us = float(random.choice([0.0, 3.0]))
            profile[(name,), f"{name}@format"] = alive_us if levels[name] else left_us
        structures = choices.levels_of(levels)
        return Variant(structures, (profile,), (1.0,), sum(profile.values()), formats)

    alike = {**ALIKE, **dict.fromkeys(sites, "site")}
    variants = [of(levels) for levels in design_variants({**OFFERED, **places}, alike, 40)]
    model = fit_model(parts, Handovers({}, {}), variants, choices, ALIKE, FULL)
    for _ in range(10):
        plan = {name: int(random.choice(LEVELS)) for name in NAMES}
        plan.update({site: int(random.choice((0, 1))) for site in sites})
        us = sum((2.0 if plan[f"{n}@format"] else 3.0) + 0.1 * plan[n] for n in NAMES if plan[n])
        wanted_us = 20.5 + us + 1.5 * sum(not plan[name] for name in NAMES)
        assert 1e3 * model.total_ms(plan) == pytest.approx(wanted_us, rel=0.05)
        other = {**plan, **{f"{n}@format": 1 - plan[f"{n}@format"] for n in NAMES if not plan[n]}}
        assert model.total_ms(plan) == pytest.approx(model.total_ms(other), rel=1e-9)


def test_what_emptied_layers_leave_follows_the_sizes_that_stand() -> None:
    """An addition that was fused to an emptied layer is as wide as the stream beside it."""
    random = np.random.default_rng(2)
    offered = {"stream": (16, 32, 48, 64), **OFFERED}
    stream = Axis(0, (("stream", 1),))
    parts = [
        Part(((), ""), "rest", ()),
        *(Part((("stream", n), ""), "block", (stream, Axis(0, ((n, 1),)))) for n in NAMES),
    ]

    def of(levels: dict[str, int]) -> Variant:
        width = levels["stream"]
        profile = {((), ""): 20.5}
        for name in NAMES:
            inner = levels[name]
            profile[("stream", name), ""] = 0.05 * width + (1.0 + 0.004 * width * inner) * (
                inner > 0
            )
        return Variant(levels, (profile,), (1.0,), sum(profile.values()))

    alike = {**ALIKE, "stream": "stream"}
    variants = [of(levels) for levels in design_variants(offered, alike, 40)]
    model = fit_model(
        parts, Handovers({}, {}), variants, Choices(offered), alike, {**FULL, "stream": 64}
    )
    for width in offered["stream"]:
        for gone in (4, 14):
            levels = [0] * gone + [int(random.choice(LEVELS[1:])) for _ in NAMES[gone:]]
            plan = {"stream": width, **dict(zip(NAMES, levels, strict=True))}
            assert 1e3 * model.total_ms(plan) == pytest.approx(of(plan).total_us, rel=0.02)


def test_a_format_that_was_only_seen_on_emptied_layers_is_no_obstacle() -> None:
    """The table also holds variants of earlier recipes, whose formats are not offered now."""
    axes = {name: Axis(0, ((name, 1),)) for name in NAMES}
    parts = [
        Part(((), ""), "rest", ()),
        *(
            Part(((n,), f"{n}@format"), "block", (axes[n],), (Weight(n, (axes[n],)),))
            for n in NAMES
        ),
    ]
    sparse = Format("int8", (4, 1), 0.5)

    def of(levels: dict[str, int]) -> Variant:
        us = {((n,), f"{n}@format"): 3.0 + 0.1 * levels[n] if levels[n] else 0.0 for n in NAMES}
        profile = {((), ""): 20.5, **us}
        formats = {name: sparse for name in NAMES if not levels[name]}
        return Variant(levels, (profile,), (1.0,), sum(profile.values()), formats)

    variants = [of(levels) for levels in design_variants(OFFERED, ALIKE, 20)]
    model = fit_model(parts, Handovers({}, {}), variants, Choices(OFFERED), ALIKE, FULL)
    assert 1e3 * model.dense_ms == pytest.approx(of(FULL).total_us, rel=0.01)

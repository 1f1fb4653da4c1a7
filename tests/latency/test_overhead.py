"""What an inference takes besides its layers is found from whole-model times."""

from dataclasses import replace

import numpy as np
import pytest

from edgeprune.formats import Format, Formats
from edgeprune.latency.attribution import Part, Weight
from edgeprune.latency.axis import Axis
from edgeprune.latency.overhead import Overhead, fit_overhead, scaled
from edgeprune.latency.profiled_variant import Variant

SPARSE = Format("int8", (4, 1), 0.5)
NAMES = tuple(f"layer{i}" for i in range(12))
PARTS = [Part(((), f"{name}@format"), "layer", (), (Weight(name, ()),)) for name in NAMES]
FIXED_US, CALL_US = 14.0, 1.5


def variant(random: np.random.Generator, slowed: float = 1.1) -> Variant:
    """Of any size, some layers sparse; a profile is slower than the layers were."""
    us = {part.bucket: float(random.uniform(5, 50)) for part in PARTS}
    for part in PARTS:
        us[part.bucket] *= random.random() < 0.8
    formats: Formats = {name: SPARSE for name in NAMES if random.random() < 0.5}
    standing = [part for part in PARTS if us[part.bucket] and part.weights[0].layer in formats]
    total_us = FIXED_US + CALL_US * len(standing) + sum(us.values()) + 3.0
    profile = {bucket: slowed * time for bucket, time in us.items()}
    return Variant({}, (profile,), (1.0,), total_us, formats, ({"layer0@format": slowed * 3.0},))


def test_the_fixed_part_and_that_of_our_operators_are_told_apart() -> None:
    random = np.random.default_rng(0)
    found = fit_overhead(PARTS, [variant(random) for _ in range(30)])
    assert found.fixed_us == pytest.approx(FIXED_US, rel=0.01)
    assert found.call_us == pytest.approx(CALL_US, rel=0.01)


def test_a_profile_is_scaled_to_the_whole_without_its_fixed_part() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        given = variant(random)
        found = scaled(PARTS, given, Overhead(FIXED_US, CALL_US))
        (profile,), (conversions,) = found.profiles, found.conversions
        total_us = sum(profile.values()) + sum(conversions.values())
        assert total_us == pytest.approx(given.total_us - FIXED_US)
        assert conversions["layer0@format"] == pytest.approx(3.0)
        assert all((us == 0) == (given.profiles[0][b] == 0) for b, us in profile.items())


def test_times_that_only_shrink_with_the_whole_have_no_overhead() -> None:
    random = np.random.default_rng(2)
    variants = [variant(random) for _ in range(20)]
    bare = [
        Variant({}, v.profiles, v.disturbed, 0.9 * sum(v.profiles[0].values()), v.formats)
        for v in variants
    ]
    found = fit_overhead(PARTS, bare)
    assert found.fixed_us < 0.5
    assert found.call_us < 0.05


def test_what_an_emptied_sparse_layer_leaves_is_no_call_of_our_operators() -> None:
    axis = Axis(0, (("block", 1),))
    part = Part((("block",), "layer@format"), "layer", (axis,), (Weight("layer", (axis,)),))
    for level, call_us in ((8, CALL_US), (0, 0.0)):
        given = Variant({"block": level}, ({part.bucket: 3.0},), (1.0,), 20.0, {"layer": SPARSE})
        (profile,) = scaled([part], given, Overhead(FIXED_US, CALL_US)).profiles
        assert profile[part.bucket] == pytest.approx(20.0 - FIXED_US)
        shared = scaled(
            [part], replace(given, total_us=FIXED_US + call_us), Overhead(FIXED_US, CALL_US)
        )
        assert shared.profiles[0][part.bucket] == pytest.approx(call_us)

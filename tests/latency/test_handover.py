"""Conversions between formats: whose they are, how long they take, and what a plan pays."""

import numpy as np
import pytest
from small_network import small_network

from edgeprune.formats import DENSE_INT8, Format, Formats
from edgeprune.graph.choices import Choices
from edgeprune.graph.network import Network
from edgeprune.graph.sites import find_sites, sources
from edgeprune.latency.attribution import Attribution
from edgeprune.latency.handover import Handovers, find_handovers, fit_handovers, handover_us
from edgeprune.latency.model import LatencyModel
from edgeprune.latency.tabulation import Tabulation

SPARSE = Format("int8", (4, 1), 0.5)
# Microseconds for each thousand values.
US = {("dense", "int8"): 1.0, ("dense", "int8-4x1"): 3.0, ("int8-4x1", "dense"): 5.0}


def layer(name: str, us: float = 1.0, original: list[str] | None = None) -> dict[str, object]:
    return {"name": name, "original": [name] if original is None else original, "us": us}


def attribution(network: Network) -> Attribution:
    layers = [layer(f"/{n.name}/Conv") for n in network.captured.module.graph.nodes]
    return Attribution(network, layers, find_sites(network.captured.module))


def handovers(network: Network) -> Handovers:
    sites = find_sites(network.captured.module)
    return find_handovers(network, sites, attribution(network).parts())


def test_a_site_reads_from_the_last_one_before_it() -> None:
    module = small_network().captured.module
    sites = find_sites(module)
    assert list(sources(module, sites.values()).items()) == [
        ("blocks_0_second@format", "blocks_0_first@format"),
        ("blocks_1_first@format", "blocks_0_second@format"),
        ("blocks_1_second@format", "blocks_1_first@format"),
        ("blocks_2_first@format", "blocks_1_second@format"),
        ("blocks_2_second@format", "blocks_2_first@format"),
    ]


def test_a_profile_shows_conversions_apart_from_layers() -> None:
    found = attribution(small_network())
    profile = [
        layer("/blocks_0_first/Conv", 20.0),
        layer("/blocks_0_first/Conv_bf16_abcd_u8_acdb_/blocks_0_second/Conv", 2.0, []),
        layer("/blocks_0_second/Conv/fq_input_0", 1.0),
        layer("/blocks_0_second/Conv", 10.0),
        # What a site makes and no other reads stays with it.
        layer("/blocks_0_second/Conv_f32_abcd_bf16_acdb_/blocks_0_relu/Relu", 4.0, []),
    ]
    assert found.time_by_handover(profile) == {"blocks_0_second@format": 3.0}
    by_site = {site: us for (_, site), us in found.time_by_bucket(profile).items()}
    assert by_site == {"blocks_0_first@format": 20.0, "blocks_0_second@format": 14.0}


def random_variants(
    network: Network, count: int
) -> tuple[list[dict[str, int]], list[Formats], list[list[dict[str, float]]]]:
    """Levels, formats, and what the conversions of each take by ``US``."""
    random = np.random.default_rng(0)
    found = handovers(network)
    levels, formats, profiles = [], [], []
    for _ in range(count):
        chosen = {
            name: int(random.choice(range(0 if s.removable else 8, s.units + 1, 8)))
            for name, s in network.structures.items()
        }
        options = [None, DENSE_INT8, SPARSE]
        picked = {name: options[random.integers(3)] for name in found.by_target}
        of_layers = {
            layer: format_
            for name, format_ in picked.items()
            if format_ is not None
            for layer in found.by_target[name].target.layers
        }
        levels.append(chosen)
        formats.append(of_layers)
        profiles.append([{}])
        for handover in found.standing(chosen):
            pair = handover.kind(of_layers, found.source(handover, chosen))[:2]
            if pair in US:
                us = US[pair] * handover.elements(chosen) / 1e3
                profiles[-1][0][handover.target.name] = us
    return levels, formats, profiles


def test_what_conversions_take_is_found_by_pairs_of_formats() -> None:
    network = small_network()
    found = handovers(network)
    levels, formats, profiles = random_variants(network, 60)
    surfaces = fit_handovers(found, levels, formats, profiles)
    for chosen, of_layers, (times,) in zip(levels, formats, profiles, strict=True):
        predicted = handover_us(found, surfaces, chosen, of_layers)
        assert predicted == pytest.approx(sum(times.values()), abs=1.5, rel=0.02)


def test_an_emptied_site_hands_on_what_it_reads() -> None:
    network = small_network()
    found = handovers(network)
    full = {name: s.units for name, s in network.structures.items()}
    inner = next(
        n for n, s in network.structures.items() if s.removable and n.startswith("blocks.1")
    )
    last = found.by_target["blocks_2_first@format"]
    first_left = found.source(last, {**full, inner: 0})
    assert first_left is not None
    assert first_left.layers == ("blocks_0_second",)
    standing = [h.target.layers[0] for h in found.standing({**full, inner: 0})]
    assert not [name for name in standing if name.startswith("blocks_1")]


def test_a_model_has_the_exact_time_of_conversions() -> None:
    network = small_network()
    found = handovers(network)
    surfaces = fit_handovers(found, *random_variants(network, 60))
    sites = find_sites(network.captured.module)
    options = {name: site.options(["int8", "int8-4x1"], (0.5, 0.9)) for name, site in sites.items()}
    levels = {
        name: tuple(range(0 if s.removable else 8, s.units + 1, 8))
        for name, s in network.structures.items()
    }
    choices = Choices(levels, sites, options)
    full = {name: s.units for name, s in network.structures.items()}
    table = Tabulation(choices, full)
    for handover in found.by_target.values():
        table.add_handover(handover, surfaces)
        table.add_bypass(handover, found.sides[handover.target.name])
    model = table.model((0.0, 1.0, 0.0))
    random = np.random.default_rng(1)
    off = []
    for _ in range(30):
        plan = {name: int(random.choice(offered)) for name, offered in choices.offered.items()}
        us = handover_us(found, surfaces, plan, choices.formats_of(plan))
        assert 1e3 * model.exact_sum_ms(plan) == pytest.approx(us, abs=1e-6)
        if all(plan[name] for name in levels):
            off.append(abs(1e3 * model.sum_ms(plan) - us))
    assert LatencyModel.from_json(model.to_json()) == model
    same = {**full, **dict.fromkeys(sites, 1)}
    assert 1e3 * model.exact_sum_ms(same) == pytest.approx(1e3 * model.sum_ms(same), abs=3.0)
    assert np.median(off) < 30.0

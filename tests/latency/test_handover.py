"""Conversions between formats: whose they are, how long they take, and what a plan pays."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from small_network import layer, small_network
from torch import Tensor, nn

from edgeprune.formats import DENSE_INT8, Format, Formats
from edgeprune.graph.capture import capture
from edgeprune.graph.choices import Choices
from edgeprune.graph.network import Network
from edgeprune.graph.sites import find_sites, sources
from edgeprune.latency.attribution import Attribution
from edgeprune.latency.handover import (
    HandoverKind,
    Handovers,
    find_handovers,
    fit_handovers,
    handover_us,
    predict_us,
)
from edgeprune.latency.model import LatencyModel
from edgeprune.latency.surface import Surface
from edgeprune.latency.tabulation import Tabulation

SPARSE = Format("int8", (4, 1), 0.5)
# Microseconds for each thousand values.
US = {
    ("dense", "int8"): 1.0,
    ("dense", "int8-4x1"): 3.0,
    ("int8-4x1", "dense"): 5.0,
    ("int8-4x1", "int8-4x1"): 2.0,
}


def attribution(network: Network) -> Attribution:
    layers = [layer(f"/{n.name}/Conv") for n in network.captured.module.graph.nodes]
    return Attribution(network, layers, find_sites(network.captured.module))


def handovers(network: Network) -> Handovers:
    sites = find_sites(network.captured.module)
    return find_handovers(network, sites, attribution(network).parts())


def test_a_site_reads_from_the_last_one_before_it() -> None:
    module = small_network().captured.module
    sites = find_sites(module)
    found = sources(module, sites.values())
    assert [(name, source.site, source.joined) for name, source in found.items()] == [
        ("blocks_0_first@format", "", False),
        ("blocks_0_second@format", "blocks_0_first@format", False),
        ("blocks_1_first@format", "blocks_0_second@format", True),
        ("blocks_1_second@format", "blocks_1_first@format", False),
        ("blocks_2_first@format", "blocks_1_second@format", True),
        ("blocks_2_second@format", "blocks_2_first@format", False),
    ]


class Gated(nn.Module):
    """The gate is computed last, and its values are few."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(8, 32, 3), nn.Conv2d(32, 32, 3)
        self.squeeze = nn.Conv2d(32, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True))))


def test_a_gate_is_not_where_values_come_from() -> None:
    module = capture(Gated().eval(), (torch.randn(1, 8, 12, 12),)).module
    found = sources(module, find_sites(module).values())
    assert found["last@format"].site == "first@format"


def test_a_profile_shows_conversions_apart_from_layers() -> None:
    found = attribution(small_network())
    profile = [
        layer("/blocks_0_first/Conv", 20.0),
        layer("/blocks_0_first/Conv_bf16_abcd_u8_acdb_/blocks_0_second/Conv", 2.0, []),
        layer("/blocks_0_second/Conv/fq_input_0", 1.0),
        layer("/blocks_0_second/Conv", 10.0),
        # What a site makes and no other reads stays with it, and so does a reader without a name.
        layer("/blocks_0_second/Conv_f32_abcd_bf16_acdb_/blocks_0_relu/Relu", 4.0, []),
        layer("/blocks_0_second/Conv_f32_abc_bf16_acb_Multiply_12", 0.5, []),
        # What quantises a site's output does so for the next one.
        layer("/blocks_0_second/Conv/fq_output_0", 0.25),
        # An operator of the network to which a quantisation was fused is that operator.
        layer("/blocks_1_first/Conv/fq_input_0", 0.125, ["/blocks_0_add/Add"]),
    ]
    assert found.time_by_handover(profile) == {
        "blocks_0_second@format": 3.0,
        "blocks_1_first@format": 0.25,
    }
    by_site = {site: us for (_, site), us in found.time_by_bucket(profile).items()}
    assert by_site == {
        "blocks_0_first@format": 20.0,
        "blocks_0_second@format": 14.5,
        "": 0.125,
    }


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


def test_of_conversions_that_come_and_go_the_mean_counts() -> None:
    network = small_network()
    found = handovers(network)
    levels, formats, profiles = random_variants(network, 60)
    random = np.random.default_rng(2)
    there = [
        {name: 3 * us * (random.random() < 1 / 3) for name, us in p[0].items()} for p in profiles
    ]
    surfaces = fit_handovers(found, levels, formats, [[times] for times in there])
    predicted = sum(
        handover_us(found, surfaces, *variant) for variant in zip(levels, formats, strict=True)
    )
    assert predicted == pytest.approx(sum(sum(times.values()) for times in there), rel=0.05)


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


def model_of(
    network: Network, families: list[str], sparsities: tuple[float, ...], step: int = 8
) -> tuple[LatencyModel, Choices, Handovers, dict[HandoverKind, Surface]]:
    """Nothing but conversions, over all levels and formats."""
    found = handovers(network)
    surfaces = fit_handovers(found, *random_variants(network, 60))
    sites = find_sites(network.captured.module)
    options = {name: site.options(families, sparsities) for name, site in sites.items()}
    levels = {
        name: tuple(range(0 if s.removable else step, s.units + 1, step))
        for name, s in network.structures.items()
    }
    choices = Choices(levels, sites, options)
    table = Tabulation(choices, {name: s.units for name, s in network.structures.items()})
    table.add_handovers(found, surfaces)
    return table.model((0.0, 1.0, 0.0)), choices, found, surfaces


def random_plans(choices: Choices, count: int) -> Iterator[dict[str, int]]:
    random = np.random.default_rng(1)
    for _ in range(count):
        yield {name: int(random.choice(offered)) for name, offered in choices.offered.items()}


def test_a_model_has_the_exact_time_of_conversions() -> None:
    model, choices, found, surfaces = model_of(small_network(), ["int8", "int8-4x1"], (0.5, 0.9))
    for plan in random_plans(choices, 40):
        us = handover_us(found, surfaces, choices.levels_of(plan), choices.formats_of(plan))
        assert 1e3 * model.exact_sum_ms(plan) == pytest.approx(us, abs=1e-6)
    assert LatencyModel.from_json(model.to_json()) == model


def test_one_format_everywhere_costs_the_search_what_it_costs() -> None:
    # So many levels and options that their pairs are too many for a form of single options.
    network = small_network()
    sparsities = (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)
    model, choices, _, _ = model_of(network, ["int8", "int8-4x1", "bf16-4x1"], sparsities, 2)
    full = {name: s.units for name, s in network.structures.items()}
    places = next(iter(choices.options.values()))
    int8 = next(place for place, option in enumerate(places) if option[0].family == "int8")
    for place in (0, int8):
        plan = {**full, **dict.fromkeys(choices.sites, place)}
        # What the first layer reads is never in int8.
        exact_us = 1e3 * model.exact_sum_ms(plan)
        assert exact_us == pytest.approx(9.2 * (place == int8), abs=0.5)
        assert 1e3 * model.sum_ms(plan) == pytest.approx(exact_us, abs=10.0)
    mixed = {name: int8 * (number % 2) for number, name in enumerate(choices.sites)}
    half = {name: level // 4 * 2 for name, level in full.items()}
    exact_us = 1e3 * model.exact_sum_ms({**half, **mixed})
    assert exact_us > 20
    assert 1e3 * model.sum_ms({**half, **mixed}) == pytest.approx(exact_us, rel=0.2)


def test_near_a_plan_the_pairwise_form_of_conversions_is_exact_there() -> None:
    model, choices, _, _ = model_of(small_network(), ["int8", "int8-4x1"], (0.5, 0.9))
    for plan in random_plans(choices, 20):
        near = model.conversions.near(plan, choices.offered)
        assert 1e3 * near.at(plan) == pytest.approx(
            1e3 * model.conversions.total_ms(plan), rel=0.02, abs=1.5
        )


def test_what_no_variant_had_is_not_taken_to_be_free() -> None:
    network = small_network()
    surfaces = fit_handovers(handovers(network), *random_variants(network, 60))
    (us,) = predict_us(surfaces, ("bf16-4x1", "int8-4x1", 4, False), [9216])
    assert us > 20
    assert predict_us(surfaces, ("f32-4x1", "f32-4x1", 4, False), [9216]) == [0.0]

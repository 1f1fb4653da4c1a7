"""Which layers share a format, and what a plan of formats says."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.errors import InputError
from edgeprune.formats import DENSE, DENSE_INT8, Format, parse_format
from edgeprune.graph.blocks import by_block, mask_by_magnitude
from edgeprune.graph.capture import capture
from edgeprune.graph.choices import Choices
from edgeprune.graph.layers import weighted_layers
from edgeprune.graph.sites import find_sites

SPARSITIES = (0.5, 0.7, 0.9)


class Mixed(nn.Module):
    """Three siblings, two layers in a row, a tied pair, a convolution, and two that do not count:
    a tiny layer and a classifier on one row."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 48, 3)
        self.query, self.key, self.value = (nn.Linear(48, 48) for _ in range(3))
        self.up, self.down = nn.Linear(48, 96), nn.Linear(96, 48)
        self.tied = nn.Linear(48, 48)
        self.tiny = nn.Linear(48, 4)
        self.classifier = nn.Linear(48, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(x).flatten(2).transpose(1, 2)
        x = x + F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        x = x + self.down(F.gelu(self.up(x)))
        return self.tiny(self.tied(torch.tanh(self.tied(x)))), self.classifier(x.mean(1))


def network() -> torch.fx.GraphModule:
    torch.manual_seed(0)
    return capture(Mixed().eval(), (torch.randn(1, 3, 8, 8),)).module


def test_layers_that_one_call_runs_share_a_site() -> None:
    sites = find_sites(network())
    assert [s.layers for s in sites.values()] == [
        ("conv",),
        ("query", "key", "value"),
        ("up", "down"),
    ]
    assert [s.in_a_row for s in sites.values()] == [False, False, True]
    assert not sites["conv@format"].runs("int8-16x4")


def test_two_layers_in_a_row_may_differ_in_their_zeros_alone() -> None:
    site = find_sites(network())["up@format"]
    options = site.options(["int8", "f32-4x1"], SPARSITIES)
    assert options[0] == (DENSE, DENSE)
    assert options[1] == (DENSE_INT8, DENSE_INT8)
    assert len(options) == len(set(options)) == 2 + 9
    assert all(a.family == b.family for a, b in options)


def test_a_plan_says_the_format_of_every_layer() -> None:
    sites = {name: s for name, s in find_sites(network()).items() if not s.convolution}
    options = {name: site.options(["int8-16x4"], SPARSITIES) for name, site in sites.items()}
    choices = Choices({"heads": (1, 2)}, sites, options)
    plan = {"heads": 1, "query@format": 2, "up@format": 0}
    assert choices.levels_of(plan) == {"heads": 1}
    formats = choices.formats_of(plan)
    assert formats == dict.fromkeys(("query", "key", "value"), Format("int8", (16, 4), 0.7))
    assert choices.place("query@format", formats) == 2
    assert choices.place("up@format", formats) == 0
    assert choices.place("up@format", {"up": Format("bf16", (4, 1), 0.7)}) is None


@pytest.mark.parametrize("name", ["dense", "int8", "int8-16x4-80", "f32-1x1-97.5", "bf16-4x1-50"])
def test_names_of_formats_read_back(name: str) -> None:
    assert str(parse_format(name)) == name


@pytest.mark.parametrize("name", ["", "int4", "int8-4x1", "f32-0x1-50", "int8-16x4-100"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="there is no format"):
        parse_format(name)


@pytest.mark.parametrize(("outputs", "rows"), [(64, 16), (68, 4), (66, 1)])
def test_a_block_fits_the_outputs_that_a_plan_leaves(outputs: int, rows: int) -> None:
    block = Format("int8", (16, 4), 0.5).fitted(outputs).block
    assert block is not None
    assert block[0] == rows


def test_masks_for_timing_hold_the_share_of_zeros() -> None:
    module = network()
    formats = {"up": Format("int8", (16, 4), 0.75), "query": Format("f32", (4, 1), 0.5)}
    mask_by_magnitude(module, formats)
    for name, format_ in formats.items():
        weight = module.get_parameter(weighted_layers(module)[name].weight)
        alive = by_block(weight, format_.block).any(-1).any(-1)
        assert 1 - float(alive.float().mean()) == pytest.approx(format_.sparsity, abs=0.01)

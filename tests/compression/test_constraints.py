"""What a recipe settles by name shows in what is offered."""

import pytest
import torch
from torch import nn

from edgeprune.compression.alternatives import offered_choices
from edgeprune.compression.constraints import with_head_width
from edgeprune.errors import InputError
from edgeprune.graph.capture import capture
from edgeprune.graph.choices import Choices
from edgeprune.graph.network import Network, analyse
from edgeprune.recipe import SearchRecipe, StructuresRecipe
from edgeprune.target import load_target


class Net(nn.Module):
    """Two residual blocks of two layers each, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(16, 64)
        self.first = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64))
        self.second = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64))
        self.head = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.first(x)
        return self.head(x + self.second(x))


@pytest.fixture(scope="module")
def network() -> Network:
    return analyse(capture(Net(), (torch.zeros(4, 16),)))


def offered(network: Network, **settled: object) -> Choices:
    recipe = SearchRecipe(formats=("none",))
    return offered_choices(network, load_target("x86"), recipe, StructuresRecipe(**settled))  # type: ignore[arg-type]


def test_without_settings_everything_is_offered(network: Network) -> None:
    levels = offered(network).levels
    assert set(levels) == {"stem:width", "first:neurons", "second:neurons"}
    assert levels["first:neurons"] == (0, *range(8, 97, 8))


@pytest.mark.parametrize(
    "pattern", ["first:neurons", "first*", "first.0", "first.0.weight", "f*.0"]
)
def test_structures_are_frozen_by_their_name_or_by_what_they_tie(
    network: Network, pattern: str
) -> None:
    found = {"stem:width", "second:neurons"}
    if pattern == "f*.0":
        found = {"second:neurons"}  # first.0 reads the residual stream, too
    if pattern in ("first.0", "first.0.weight"):
        found = {"second:neurons"}
    assert set(offered(network, freeze=[pattern]).levels) == found


def test_a_share_or_a_number_is_kept_in_every_plan(network: Network) -> None:
    choices = offered(network, keep={"*:neurons": 0.5, "second:*": 7})
    assert choices.forced == {"first:neurons": 48, "second:neurons": 7}
    assert choices.levels["first:neurons"] == (48, 96)
    assert choices.levels["second:neurons"] == (7, 96)


def test_a_block_can_be_forced_out(network: Network) -> None:
    assert offered(network, keep={"first:neurons": 0}).forced == {"first:neurons": 0}


def test_what_is_forced_is_offered_whatever_its_kind(network: Network) -> None:
    recipe = SearchRecipe(formats=("none",), kinds=("width",))
    settled = StructuresRecipe(keep={"first:neurons": 0.25})
    choices = offered_choices(network, load_target("x86"), recipe, settled)
    assert set(choices.levels) == {"stem:width", "first:neurons"}


def test_minimum_and_multiple_bound_the_levels(network: Network) -> None:
    levels = offered(network, minimum={"first:*": 40}, multiple={"*": 32}).levels
    assert levels["first:neurons"] == (64, 96)
    assert levels["second:neurons"] == (0, 32, 64, 96)
    assert levels["stem:width"] == (32, 64)


@pytest.mark.parametrize(
    ("settled", "words"),
    [
        ({"freeze": ["frist:neurons"]}, "structures.freeze matches nothing; did you mean 'first:n"),
        ({"keep": {"second.2.wieght": 0.5}}, "did you mean 'second.2.weight'"),
        ({"minimum": {"first:neurons": 97}}, "which has 96"),
        ({"keep": {"first:neurons": 97}}, "0 to 96 can stay"),
        ({"keep": {"stem:width": 0}}, "1 to 64 can stay"),
        ({"keep": {"first:neurons": 3.5}}, "must be whole"),
        ({"keep": {"first:*": 0.1}, "minimum": {"first:*": 32}}, "32 to 96 can stay"),
        ({"keep": {"first:*": 0.5}, "freeze": ["*:neurons"]}, "leave out one"),
        ({"multiple": {"head.bias": 8}}, "no structure reaches"),
    ],
)
def test_what_cannot_be_settled_is_told(
    network: Network, settled: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words.replace("*", r"\*")):
        offered(network, **settled)


class Attention(nn.Module):
    """Two attention layers on a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.MultiheadAttention(16, 4, batch_first=True)
        self.second = nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.first(x, x, x, need_weights=False)[0]
        return self.head(x + self.second(x, x, x, need_weights=False)[0])


def test_heads_are_narrowed_where_the_recipe_asks_for_it() -> None:
    network = analyse(capture(Attention().eval(), (torch.randn(1, 5, 16),)))
    assert not [s for s in network.structures.values() if s.kind == "head_width"]
    wide, notes = with_head_width(network, ["first*"])
    assert not notes
    assert {n for n, s in wide.structures.items() if s.kind == "head_width"} == {
        "first:head_width"  # queries, keys and values are one tensor on the way
    }
    assert set(offered(wide).levels) >= {"first:heads", "first:head_width", "second:heads"}
    with pytest.raises(InputError, match=r"'fist\*' in structures.head_width matches nothing"):
        with_head_width(network, ["fist*"])
    with pytest.raises(InputError, match="names (parts that no structure reaches|no heads)"):
        with_head_width(network, ["head*"])

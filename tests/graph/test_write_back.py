"""A shrunk network in the user's own module: equal and trainable, or the module as it was."""

import copy
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
import torch.nn.functional as F
from comparing import assert_equal, everything
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from masked_reference import flat
from shrinking import EXPRESSIBLE, analysed, half, prepared
from torch import Tensor, nn

from edgeprune import resize, write_back
from edgeprune.errors import StructureError
from edgeprune.graph.capture import capture
from edgeprune.graph.network import Network, analyse
from edgeprune.graph.write_back.sizes import load_sizes

QUICK = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def draw_keep(data: st.DataObject, network: Network, least: int = 1) -> dict[str, list[int]]:
    keep = {}
    for name, structure in network.structures.items():
        fewest = least if structure.removable else 1
        units = st.lists(st.integers(0, structure.units - 1), min_size=fewest, unique=True)
        keep[name] = sorted(data.draw(units, label=name))
    return keep


def train_one_step(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    sum((y**2).mean() for y in flat(model(*inputs))).backward()
    optimizer.step()


@pytest.mark.parametrize("name", EXPRESSIBLE)
@QUICK
@given(data=st.data())
def test_the_module_is_the_shrunk_graph_and_trains_like_it(name: str, data: st.DataObject) -> None:
    dense, inputs, network = prepared(name)
    keep, model = draw_keep(data, network), copy.deepcopy(dense)
    graph = network.shrink(keep)
    sizes = write_back(model, network, keep, graph)
    assert_equal(model, graph, inputs)
    train_one_step(model, inputs)
    train_one_step(graph, inputs)
    assert_equal(model, graph, inputs)

    again = resize(copy.deepcopy(dense), sizes)
    again.load_state_dict(model.state_dict())
    assert_equal(again, graph, inputs)


@pytest.mark.parametrize("name", networks.CASES)
@QUICK
@given(data=st.data())
def test_it_is_written_back_or_left_bit_for_bit(name: str, data: st.DataObject) -> None:
    dense, inputs, network = prepared(name)
    keep, model = draw_keep(data, network, least=0), copy.deepcopy(dense)
    try:
        graph = network.shrink(keep)
    except StructureError:
        return  # not all of them can be emptied at once
    before = everything(model)
    try:
        write_back(model, network, keep, graph)
    except StructureError as error:
        assert name not in EXPRESSIBLE
        assert "the graph module is the product" in str(error)
        assert everything(model) == before
    else:
        assert_equal(model, graph, inputs)


class Cnn(nn.Module):
    """Shortcut, depthwise and grouped convolutions, transposed ones, every kind of norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.PReLU(8))
        self.wide, self.norm = nn.Conv2d(8, 12, 1), nn.InstanceNorm2d(12, affine=True)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.back = nn.Conv2d(12, 8, 1)
        self.grouped, self.group_norm = nn.Conv2d(8, 16, 1, groups=8), nn.GroupNorm(8, 16)
        self.up, self.head = nn.ConvTranspose2d(16, 6, 2, 2), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.back(F.relu(self.depthwise(self.norm(self.wide(x)))))
        x = self.up(F.relu(self.group_norm(self.grouped(x))))
        return self.head(x.mean((2, 3)))


def test_sizes_of_torchs_modules_follow() -> None:
    torch.manual_seed(0)
    model, x = Cnn().eval(), torch.randn(2, 3, 8, 8)
    network = analysed(model, x)
    keep = half(network)
    graph = network.shrink(keep)
    sizes = write_back(model, network, keep, graph)
    assert_equal(model, graph, (x,))
    assert sizes.modules["stem.0"] == {"out_channels": 4}
    assert sizes.modules["stem.1"] == {"num_features": 4}
    assert sizes.modules["stem.2"] == {"num_parameters": 4}
    assert sizes.modules["norm"] == {"num_features": 6}
    assert sizes.modules["depthwise"] == {"in_channels": 6, "out_channels": 6, "groups": 6}
    assert sizes.modules["grouped"] == {"in_channels": 4, "out_channels": 8, "groups": 4}
    assert sizes.modules["group_norm"] == {"num_groups": 4, "num_channels": 8}
    assert sizes.modules["up"] == {"in_channels": 8, "out_channels": 3}
    assert sizes.modules["head"] == {"in_features": 3}
    assert not sizes.own
    model.train()
    train_one_step(model, (x,))


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.lstm = nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True)
        self.cell = nn.GRUCell(12, 4)
        self.pair = nn.Bilinear(4, 6, 5)
        self.norm, self.head = nn.LayerNorm(5), nn.Linear(5, 3)

    def forward(self, ids: Tensor) -> Tensor:
        found = self.lstm(self.embed(ids))[0]
        return self.head(self.norm(self.pair(self.cell(found[:, 0]), found[:, 1, :6])))


def test_sizes_of_recurrent_modules_follow() -> None:
    torch.manual_seed(0)
    model, ids = Tagger().eval(), torch.randint(0, 11, (2, 5))
    network = analysed(model, ids)
    keep = half(network)
    for name, structure in network.structures.items():
        if any(slot.tensor.startswith("pair") and slot.dim > 0 for slot in structure.slots):
            keep[name] = list(range(structure.units))  # a slice counts six of its positions
    graph = network.shrink(keep)
    sizes = write_back(model, network, keep, graph)
    assert_equal(model, graph, (ids,))
    assert sizes.modules["embed"] == {"embedding_dim": 4}
    assert sizes.modules["norm"] == {"normalized_shape": (3,)}
    assert sizes.modules["head"] == {"in_features": 3}
    assert sizes.modules["lstm"]["input_size"] == 4


def test_the_number_of_heads_is_found_layer_by_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(networks.Encoder(), nn.Linear(5, 20), nn.ReLU()).eval()
    ids = torch.randint(0, 20, (1, 7))
    network = analysed(model, ids)
    (heads,) = [n for n, s in network.structures.items() if s.kind == "heads"]
    sizes = write_back(model, network, {heads: [0, 2]})
    assert sizes.own == {"0": {"heads": 2}}
    assert model[0].heads == 2 and model[0].q.out_features == 8
    assert_equal(model, network.shrink({heads: [0, 2]}), (ids,))


class Stack(nn.Module):
    """Two layers that keep their number of heads under one name, and a table of positions."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_heads, self.head_size, self.all_head_size = 4, 3, 12
            self.qkv, self.out = nn.Linear(8, 36), nn.Linear(12, 8)
            self.register_buffer("slopes", torch.rand(4), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            n, length, _ = x.shape
            q, k, v = self.qkv(x).split(self.all_head_size, dim=-1)
            q, k, v = (
                y.view(n, length, self.num_heads, self.head_size).transpose(1, 2) for y in (q, k, v)
            )
            a = (q @ k.transpose(-1, -2) + self.slopes[:, None, None]).softmax(-1) @ v
            return x + self.out(a.transpose(1, 2).reshape(n, length, self.all_head_size))

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layers = nn.Linear(4, 8), nn.Sequential(self.Layer(), self.Layer())
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(x)))


def test_heads_may_differ_from_layer_to_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Stack().eval(), torch.randn(2, 5, 4)
    dense = copy.deepcopy(model)
    network = analysed(model, x)
    first, second = (n for n, s in network.structures.items() if s.kind == "heads")
    keep = {first: [1], second: [0, 2, 3]}
    graph = network.shrink(keep)
    sizes = write_back(model, network, keep, graph)
    assert sizes.own == {
        "layers.0": {"num_heads": 1, "all_head_size": 3},
        "layers.1": {"num_heads": 3, "all_head_size": 9},
    }
    assert_equal(model, graph, (x,))
    sizes.save(tmp_path / "sizes.json")
    assert load_sizes(tmp_path / "sizes.json") == sizes
    # The slopes are no part of a dense module's state dict; which are left has to be.
    again = resize(dense, tmp_path / "sizes.json")
    again.load_state_dict(model.state_dict())
    assert_equal(again, graph, (x,))


class Split(nn.Module):
    """Sizes of parts, and of heads, in one attribute each."""

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.heads = [6, 6], (4, 3)
        self.wide, self.head = nn.Linear(4, 12), nn.Linear(12, 2)
        self.qkv, self.out = nn.Linear(4, 36), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, *self.heads)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        a, b = self.wide(x).split(self.parts, dim=-1)
        return self.head(torch.cat([a.relu(), b.tanh()], -1))


def test_sizes_in_lists_are_found(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Split().eval(), torch.randn(2, 5, 4)
    dense, network = copy.deepcopy(model), analysed(model, x)
    keep = {
        n: range(2) if s.kind == "heads" else range(s.units - 1 - number)
        for number, (n, s) in enumerate(network.structures.items())
    }
    graph = network.shrink(keep)
    sizes = write_back(model, network, keep, graph)
    assert model.heads == (2, 3)
    assert isinstance(model.parts, list)
    assert len({6, *model.parts}) == 3
    assert sum(model.parts) == model.wide.out_features
    assert_equal(model, graph, (x,))
    sizes.save(tmp_path / "sizes.json")
    again = resize(dense, tmp_path / "sizes.json")
    again.load_state_dict(model.state_dict())
    assert_equal(again, graph, (x,))


def test_sizes_written_into_the_code_are_refused_with_their_line() -> None:
    model, inputs = networks.CASES["normalised_queries"]()
    network = analyse(capture(model, inputs))
    before = everything(model)
    with pytest.raises(StructureError, match=r"Net cannot be written back.*networks\.py:\d+"):
        write_back(model, network, half(network))
    assert everything(model) == before


@pytest.mark.parametrize("name", ["encoder", "residual_stages"])
def test_one_unit_of_zeros_stands_for_a_block_that_was_taken_out(name: str) -> None:
    dense, inputs, network = prepared(name)
    inner = {n: s for n, s in network.structures.items() if s.kind != "width"}
    emptied = [n for n, s in inner.items() if s.removable]
    keep = {n: [] for n in emptied}
    model, graph = copy.deepcopy(dense), network.shrink(keep)
    before = sum(p.numel() for p in graph.parameters())
    sizes = write_back(model, network, keep, graph)
    assert_equal(model, graph, inputs)
    assert emptied
    assert {f"{n}: taken out whole; one unit of zeros stands for it" for n in emptied} <= set(
        sizes.notes
    )
    assert before < sum(p.numel() for p in model.parameters())
    again = resize(copy.deepcopy(dense), sizes)
    again.load_state_dict(model.state_dict())
    assert_equal(again, graph, inputs)
    train_one_step(model, inputs)


def test_a_block_of_a_concatenation_can_be_taken_out() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1)
            self.head = nn.Conv2d(10, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.head(torch.cat([y, self.b(F.relu(self.norm(y)))], 1))

    torch.manual_seed(0)
    model, x = Dense().eval(), torch.randn(1, 3, 4, 4)
    network = analysed(model, x)
    names = [n for n, s in network.structures.items() if s.removable]
    assert names
    for name in names:
        written, graph = copy.deepcopy(model), network.shrink({name: []})
        with torch.no_grad():
            for p in graph.parameters():
                p.mul_(1.5)  # weights that were trained since
        write_back(written, network, {name: []}, graph)
        assert_equal(written, graph, (x,))


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(9, 6), nn.Linear(6, 9, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.embed(ids).tanh())

    model, ids = Tied(), torch.arange(9).reshape(1, 9)
    network = analysed(model, ids)
    (name,) = network.structures
    sizes = write_back(model, network, {name: [1, 3, 4]})
    assert model.embed.weight is model.out.weight
    assert sizes.modules == {"embed": {"embedding_dim": 3}, "out": {"in_features": 3}}
    assert_equal(model, network.shrink({name: [1, 3, 4]}), (ids,))


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
def test_weights_that_were_computed_become_plain(norm: Any) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(norm(nn.Linear(4, 6)), nn.ReLU(), nn.Linear(6, 2)).eval()

    model, x = build(), torch.randn(3, 4)
    network = analysed(model, x)
    (name,) = network.structures
    sizes = write_back(model, network, {name: [0, 5]})
    assert any("0.weight" in note for note in sizes.notes)
    assert set(model.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    again = resize(build(), sizes)
    again.load_state_dict(model.state_dict())
    assert_equal(again, network.shrink({name: [0, 5]}), (x,))


def test_a_refusal_leaves_parametrizations_in_place() -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.utils.parametrizations.weight_norm(nn.Linear(4, 6))
            self.b = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).view(-1, 6).relu())

    model, x = Counted(), torch.randn(3, 4)
    network = analysed(model, x)
    (name,) = network.structures
    before, output = everything(model), model(x)
    with pytest.raises(StructureError):
        write_back(model, network, {name: [0, 5]})
    assert everything(model) == before
    assert torch.equal(model(x), output)


def test_a_module_whose_result_is_not_used_is_named_with_a_remedy() -> None:
    class LastResidual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down, self.residual = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.up(x).relu()
            x = x + self.residual(y)  # for a next block, which there is not
            return self.down(y)

    model = LastResidual()
    network = analysed(model, torch.randn(2, 4))
    message = r"fails in residual \(Linear\).*nothing that it gives is used.*leave out that call"
    with pytest.raises(StructureError, match=message):
        write_back(model, network, half(network))


def test_parameters_that_inference_does_not_read_are_named() -> None:
    class Auxiliary(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
            self.unused = nn.Parameter(torch.zeros(6))

        def forward(self, x: Tensor) -> Tensor:
            return self[2](self[1](self[0](x)))

    model, x = Auxiliary(), torch.randn(3, 4)
    network = analysed(model, x)
    (name,) = network.structures
    sizes = write_back(model, network, {name: [1]})
    assert sizes.notes == ("not read at inference and left as they are: unused",)

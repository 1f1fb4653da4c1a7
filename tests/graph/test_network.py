"""What a network tells about itself, and what it refuses."""

import copy

import networks
import pytest
import torch

from edgeprune.errors import InputError, StructureError
from edgeprune.graph.capture import capture
from edgeprune.graph.network import Network, analyse
from edgeprune.graph.weights import load_weights, save_weights


@pytest.fixture(scope="module")
def network() -> Network:
    return analyse(capture(*networks.CASES["residual_stages"]()))


def half(network: Network) -> dict[str, range]:
    return {n: range(0, s.units, 2) for n, s in network.structures.items()}


def test_the_stages_of_a_padded_residual_net(network: Network) -> None:
    kinds = {name: (s.kind, s.units) for name, s in network.structures.items()}
    assert kinds == {
        "0.0:width": ("width", 6),
        "0.1:channels": ("channels", 6),
        "0.2:channels": ("channels", 10),
        "0.2.conv2:width": ("width", 4),
    }
    assert network.structures["0.1:channels"].removable
    assert not network.structures["0.0:width"].removable


def test_slots_name_producers_and_consumers(network: Network) -> None:
    inner = network.structures["0.1:channels"]
    assert [(s.tensor, s.dim, s.layer) for s in inner.outputs()] == [
        ("0.1.conv1.weight", 0, "op_0_1_conv1")
    ]
    assert [(s.tensor, s.dim, s.layer) for s in inner.inputs()] == [
        ("0.1.conv2.weight", 1, "op_0_1_conv2")
    ]
    vectors = {s.tensor for s in inner.slots if s.role == "vector"}
    assert vectors == {f"0.1.bn1.{k}" for k in ("weight", "bias", "running_mean", "running_var")}


def test_structures_of_a_layer_are_those_that_change_its_cost(network: Network) -> None:
    assert network.structures_of("op_0_1_conv1") == ("0.0:width", "0.1:channels")
    assert network.structures_of("op_0_2_conv2") == (
        "0.0:width",
        "0.2:channels",
        "0.2.conv2:width",
    )


def test_shrunk_parameters_are_own_and_trainable(network: Network) -> None:
    shrunk = network.shrink(half(network))
    x = network.captured.example_inputs
    shrunk(*x)[0].sum().backward()
    assert all(p.grad is not None for p in shrunk.parameters())
    before = {n: p.clone() for n, p in network.captured.module.named_parameters()}
    with torch.no_grad():
        for p in shrunk.parameters():
            p.zero_()
    for name, p in network.captured.module.named_parameters():
        assert torch.equal(p, before[name])


def test_copies_carry_their_new_shapes(network: Network) -> None:
    shrunk = copy.deepcopy(network.shrink(half(network)))
    shapes = {n.name: n.meta["val"].shape for n in shrunk.graph.nodes if n.op == "call_function"}
    assert tuple(shapes["op_0_1_conv1"]) == (1, 3, 8, 8)
    assert tuple(shrunk(*network.captured.example_inputs)[0].shape) == (1, 4)


def test_state_replaces_the_captured_parameters(network: Network) -> None:
    state = {"3.bias": torch.full((4,), 7.0)}
    assert torch.equal(network.shrink({}, state).state_dict()["3.bias"], state["3.bias"])
    with pytest.raises(StructureError, match=r"3\.bias"):
        network.shrink({}, {"3.bias": torch.zeros(3)})


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"0.1:chanels": [0]}, "did you mean '0.1:channels'"),
        ({"0.1:channels": [6]}, "units 0 to 5"),
        ({"0.1:channels": [-1]}, "units 0 to 5"),
        ({"0.0:width": []}, "at least one"),
    ],
)
def test_impossible_choices_are_refused(network: Network, keep, message: str) -> None:
    with pytest.raises(StructureError, match=message):
        network.shrink(keep)


def test_unknown_nodes_and_parameters_are_refused(network: Network) -> None:
    with pytest.raises(StructureError, match="nothere"):
        network.shapes("nothere")
    with pytest.raises(StructureError, match="nothere"):
        network.param_shape("nothere")


def test_frozen_parameters_keep_their_shape() -> None:
    model, inputs = networks.CASES["encoder"]()
    network = analyse(capture(model, inputs), freeze=["up.weight"])
    assert not any(
        slot.tensor == "up.weight" for s in network.structures.values() for slot in s.slots
    )
    assert any(f.tensor == "up.weight" and "on request" in f.reason for f in network.frozen)
    assert any(s.kind == "heads" for s in network.structures.values())


def test_tied_parameters_shrink_once() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = torch.nn.Embedding(9, 6), torch.nn.Linear(6, 9, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, ids):
            return self.out(self.embed(ids).tanh())

    model = Tied().eval()
    ids = torch.arange(9).reshape(1, 9)
    network = analyse(capture(model, (ids,)))
    (name,) = network.structures
    shrunk = network.shrink({name: [0, 2, 5]})
    assert [tuple(p.shape) for p in shrunk.parameters()] == [(9, 3)]
    with torch.no_grad():
        model.embed.weight[:, [1, 3, 4]] = 0
    torch.testing.assert_close(shrunk(ids)[0], model(ids))


def test_summary_names_what_is_prunable(network: Network) -> None:
    summary = network.summary()
    assert summary.share_prunable == 1.0
    assert summary.unprunable == ()
    assert "0.1:channels: 6 channels, removable" in str(summary)


def test_statistics_over_survivors_are_reported() -> None:
    network = analyse(capture(*networks.CASES["encoder"]()))
    assert network.renormalised == ("norm1", "norm2")


def test_weights_survive_the_disk(network: Network, tmp_path) -> None:
    keep = half(network)
    shrunk = network.shrink(keep)
    with torch.no_grad():
        for p in shrunk.parameters():
            p.normal_()
    save_weights(shrunk, tmp_path / "weights.safetensors")
    again = network.shrink(keep)
    load_weights(again, tmp_path / "weights.safetensors")
    x = network.captured.example_inputs
    assert torch.equal(again(*x)[0], shrunk(*x)[0])
    with pytest.raises(InputError, match="another plan"):
        load_weights(network.shrink({}), tmp_path / "weights.safetensors")
    (tmp_path / "weights.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(again, tmp_path / "weights.safetensors")

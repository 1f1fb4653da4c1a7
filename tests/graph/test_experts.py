"""Experts in stacked tensors go with their rows of the router that chooses among them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exactness import difference
from networks import CASES, Experts
from torch import Tensor, nn

from edgeprune.errors import StructureError
from edgeprune.graph.capture import capture
from edgeprune.graph.network import Network, analyse
from edgeprune.graph.onnx_export import export_onnx
from edgeprune.graph.structure import Structure


def _analysed(model: nn.Module, *, inputs: tuple[Tensor, ...] | None = None) -> Network:
    return analyse(capture(model.eval(), inputs or (torch.randn(6, 4),)))


def _experts(network: Network) -> Structure:
    (found,) = (s for s in network.structures.values() if s.kind == "experts")
    return found


@pytest.mark.parametrize(
    ("name", "chosen"), [("chosen_experts", 2), ("chosen_experts_by_logits", 3)]
)
def test_experts_are_a_structure_of_which_as_many_stay_as_are_chosen(
    name: str, chosen: int
) -> None:
    model, inputs = CASES[name]()
    network = _analysed(model, inputs=inputs)
    experts = _experts(network)
    assert (experts.name, experts.units, experts.least) == ("gate:experts", 5, chosen)
    stacked = {slot.tensor for slot in experts.slots if slot.role == "vector"}
    assert stacked - {"gate.bias"} == {"up", "bias", "down"}
    shrunk = network.shrink({experts.name: range(chosen)})
    assert shrunk.state_dict()["up"].shape == (chosen, 7, 6)
    with pytest.raises(StructureError, match=f"{chosen} are chosen at a time"):
        network.shrink({experts.name: range(chosen - 1)})


def test_the_last_expert_serves_every_row(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    torch.manual_seed(0)
    model, inputs = Experts(1, "before").eval(), (torch.randn(6, 4),)
    network = _analysed(model, inputs=inputs)
    keep = {_experts(network).name: [3]}
    found = difference(model, inputs, network, keep)
    assert found.plain < 1e-5
    export_onnx(found.pruned, inputs, tmp_path / "m.onnx")
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(tmp_path / "m.onnx"), "CPU", exact)
    have = compiled(inputs[0].numpy())[0]
    np.testing.assert_allclose(have, found.pruned(*inputs)[0].detach(), rtol=1e-4, atol=1e-5)


class _Shortcut(Experts):
    """Beside another way for the values."""

    def __init__(self) -> None:
        super().__init__(2, "before")
        self.past = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.past(x) + super().forward(x)


def test_without_neurons_nothing_of_the_mixture_is_left() -> None:
    torch.manual_seed(0)
    model, inputs = _Shortcut().eval(), (torch.randn(6, 4),)
    network = _analysed(model, inputs=inputs)
    (neurons,) = (
        s for s in network.structures.values() if "down" in {t.tensor for t in s.inputs()}
    )
    assert neurons.removable
    found = difference(model, inputs, network, {neurons.name: []})
    assert found.plain < 1e-5
    assert set(found.pruned.state_dict()) >= {"past.weight", "past.bias"}
    left = {n.name for n in found.pruned.graph.nodes if n.op == "call_function"}
    assert not any(word in name for name in left for word in ("gate", "topk", "sort", "histc"))


class _Returned(Experts):
    """The logits leave the network, too."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x), self.gate(torch.relu(self.inner(x)))


class _Scaled(Experts):
    """The router's bias is added to what a sigmoid makes of its logits: none is minus infinity."""

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.gate(x).sigmoid()
        chosen = (scores + self.bias[:, 0]).topk(self.chosen)[1]
        return scores.gather(-1, chosen), chosen


class _ByNumber(Experts):
    """What an expert does depends on its number."""

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        best, chosen = super().route(x)
        return best * chosen, chosen


class _Worst(Experts):
    """The least likely are chosen."""

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        best, chosen = self.gate(x).softmax(-1).topk(self.chosen, largest=False)
        return best, chosen


class _Twice(Experts):
    """The second softmax counts an expert of which the first makes zero."""

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        best, chosen = self.gate(x).softmax(-1).softmax(-1).topk(self.chosen)
        return best, chosen


class _Mixed(Experts):
    """All experts together do something, too."""

    def forward(self, x: Tensor) -> Tensor:
        everything: Tensor = super().forward(x) + self.down.std(0).sum()
        return everything


def test_the_best_of_some_features_are_no_experts() -> None:
    class Best(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.gate = nn.Linear(4, 6), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.gate(torch.relu(self.inner(x))).topk(2)[0]

    assert {s.kind for s in _analysed(Best()).structures.values()} == {"neurons"}
    assert "topk runs over features" in str(_analysed(Best()).summary())


@pytest.mark.parametrize("kind", [_Returned, _Scaled, _ByNumber, _Worst, _Twice, _Mixed])
def test_experts_stay_where_not_everything_that_reads_the_choice_is_known(
    kind: type[Experts],
) -> None:
    network = _analysed(kind(2, "before"))
    assert not [s for s in network.structures.values() if s.kind == "experts"]
    (reason,) = {f.reason for f in network.frozen if (f.tensor, f.dim) == ("gate.weight", 0)}
    assert "runs over features" in reason or "outputs keep their shape" in reason
    keep = {name: range(s.least) for name, s in network.structures.items()}
    assert network.shrink(keep).state_dict()["up"].shape[0] == 5

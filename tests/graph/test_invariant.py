"""A shrunk network computes what the user's module computes with the removed weights zero."""

from functools import lru_cache
from typing import Any

import networks
import pytest
import torch
from exactness import difference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from masked_reference import flat, plain_copy, zero_removed

from edgeprune.errors import StructureError
from edgeprune.graph.capture import capture
from edgeprune.graph.mask import masked_state
from edgeprune.graph.network import Network, analyse

QUICK = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
FROZEN_BY = {
    "unknown_operator": "fft_fft",
    "positive_features": "matmul",
    "threshold_by_spread": "std",
    "statistics_of_single_channels": "instance_norm",
}


NARROWED = ("encoder", "eager_encoder", "grouped_queries")
"""Cases whose heads may be narrowed as well as removed, if asked for."""
ALL = [*networks.CASES, *(f"{name}, narrowed" for name in NARROWED)]


@lru_cache
def prepared(name: str) -> tuple[Any, Any, Network]:
    case, _, narrowed = name.partition(", ")
    model, inputs = networks.CASES[case]()
    network = analyse(capture(model, inputs))
    if narrowed:
        heads = [n for n, s in network.structures.items() if s.kind == "heads"]
        network = network.with_head_width(heads)
    return model, inputs, network


def draw_keep(data: st.DataObject, network: Network) -> dict[str, list[int]]:
    keep = {}
    for name, structure in network.structures.items():
        least, number = structure.least, st.integers(0, structure.units - 1)
        units = st.lists(number, min_size=least, unique=True)
        keep[name] = sorted(data.draw(units, label=name))
    return keep


@pytest.mark.parametrize("name", ALL)
@QUICK
@given(data=st.data())
def test_any_choice_is_exact(name: str, data: st.DataObject) -> None:
    model, inputs, network = prepared(name)
    keep = draw_keep(data, network)
    try:
        found = difference(model, inputs, network, keep, seed=1)
    except StructureError as error:
        # Each may be emptied, but not always all of them at once.
        assert sum(not units for units in keep.values()) > 1, error
        return
    assert found.survivors < 1e-4


@pytest.mark.parametrize("name", ALL)
@QUICK
@given(data=st.data())
def test_shapes_are_as_predicted(name: str, data: st.DataObject) -> None:
    _, inputs, network = prepared(name)
    keep = draw_keep(data, network)
    keep = {name: units or [0] for name, units in keep.items()}
    levels = {name: len(units) for name, units in keep.items()}
    shrunk = network.shrink(keep)
    for fqn, value in shrunk.state_dict().items():
        if fqn in network.captured.module.state_dict():
            assert tuple(d.at(levels) for d in network.param_shape(fqn)) == tuple(value.shape)

    class Checker(torch.fx.Interpreter):
        checked = 0

        def run_node(self, n: torch.fx.Node) -> Any:
            result = super().run_node(n)
            if n.op == "call_function" and "__" not in n.name:
                want = [tuple(d.at(levels) for d in s) for s in network.shapes(n.name)]
                assert want == [tuple(t.shape) for t in flat(result)]
                Checker.checked += 1
            return result

    Checker(shrunk).run(*inputs)
    assert Checker.checked > 0


@pytest.mark.parametrize("name", networks.CASES)
def test_what_cannot_be_pruned_is_reported(name: str) -> None:
    _, _, network = prepared(name)
    assert network.structures
    if name in FROZEN_BY:
        found = [f for f in network.frozen if f.operator == FROZEN_BY[name]]
        assert found, network.frozen
        assert all(f.source.startswith("networks.py:") for f in found)
        assert f"{FROZEN_BY[name]} at networks.py:" in str(network.summary())


@pytest.mark.parametrize("name", ["residual_stages", "encoder", "squeeze_and_split"])
def test_masked_state_zeroes_what_the_structures_say(name: str) -> None:
    model, _, network = prepared(name)
    keep = {n: range(0, s.units, 2) for n, s in network.structures.items()}
    masked = plain_copy(model)
    assert zero_removed(masked, network.structures, keep) > 0
    state = masked_state(network, keep)
    for fqn, value in masked.state_dict().items():
        if fqn in state:
            assert torch.equal(value, state[fqn]), fqn


def test_emptying_a_block_takes_its_operators_out() -> None:
    _, inputs, network = prepared("encoder")
    names = {s.kind: s.name for s in network.structures.values()}
    assert set(names) == {"heads", "neurons", "width"}
    assert network.structures[names["heads"]].units == 3
    shrunk = network.shrink({names["heads"]: [], names["neurons"]: []})
    left = {n.name for n in shrunk.graph.nodes if n.op == "call_function"}
    assert not left & {"q", "k", "v", "norm1", "norm2", "up", "scaled_dot_product_attention"}
    state = shrunk.state_dict()
    assert "o.bias" in state and "o.weight" not in state
    assert shrunk(*inputs)[0].shape == (1, 7, 5)


@pytest.mark.parametrize("name", NARROWED)
def test_heads_and_what_they_are_wide_can_go_at_once(name: str) -> None:
    model, inputs, network = prepared(f"{name}, narrowed")
    kinds = [s.kind for s in network.structures.values()]
    assert kinds.count("heads") == 1
    assert kinds.count("head_width") == 2
    # To be of no width is to be gone, which is a level of the heads.
    assert [s.kind for s in network.structures.values() if s.removable][:1] == ["heads"]
    assert not any(s.removable for s in network.structures.values() if s.kind == "head_width")
    keep = {n: [0] for n, s in network.structures.items() if s.kind in ("heads", "head_width")}
    found = difference(model, inputs, network, keep, seed=1)
    assert found.survivors < 1e-4
    weights = network.shrink(keep).state_dict()
    assert weights["o.weight"].shape[1] <= 3  # a head of a group, one wide


def test_heads_that_cannot_go_are_narrowed_unasked() -> None:
    _, _, network = prepared("given_head_count")
    assert [(s.kind, s.units) for s in network.structures.values()] == [("head_width", 4)] * 2


def test_only_heads_have_a_width() -> None:
    _, _, network = prepared("encoder")
    with pytest.raises(StructureError, match="no structure of heads 'o:heads'"):
        network.with_head_width(["o:heads"])

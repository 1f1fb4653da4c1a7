"""Every criterion ranks all units; what each one must put first, it puts first."""

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.compression.criteria import criterion, names
from edgeprune.compression.criteria.context import CriterionContext
from edgeprune.compression.offer import output_gradients
from edgeprune.errors import EdgepruneError, InputError
from edgeprune.graph.capture import capture
from edgeprune.graph.network import Network, analyse


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 5),
    ).eval()
    return analyse(capture(model, (torch.randn(4, 3, 8, 8),)))


def context(network: Network, **changes: object) -> CriterionContext:
    state = {k: v.clone() for k, v in network.captured.module.state_dict().items()}
    batch = (torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)),)
    gradients = output_gradients(network, [batch])
    settings = {"network": network, "state": state, "grams": {}, "gradients": gradients}
    return CriterionContext(**(settings | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", names())
def test_orders_hold_every_unit_once_and_repeat(name: str, network: Network) -> None:
    found = context(network)
    assert len(network.structures) == 2
    for structure in network.structures.values():
        order = criterion(name).order(structure, found)
        assert sorted(order) == list(range(structure.units))
        assert np.array_equal(order, criterion(name).order(structure, found))
        assert criterion(name).name == name


def test_unknown_names_get_the_closest_one() -> None:
    with pytest.raises(InputError, match="did you mean 'taylor'"):
        criterion("tailor")


def test_magnitude_takes_small_weights_first(network: Network) -> None:
    found = context(network)
    structure = next(s for s in network.structures.values() if s.units == 12)
    small = [7, 2, 9]
    for rank, unit in enumerate(small):
        for slot in structure.slots:
            if slot.role != "vector":
                index = torch.from_numpy(np.flatnonzero(slot.unit == unit))
                weight = found.state[slot.tensor]
                weight.index_fill_(slot.dim, index, 1e-4 * (rank + 1))
    assert criterion("magnitude").order(structure, found)[:3].tolist() == small


def test_magnitude_gives_every_layer_an_equal_say(network: Network) -> None:
    structure = next(s for s in network.structures.values() if s.units == 12)
    plain, scaled = context(network), context(network)
    scaled.state[structure.inputs()[0].tensor].mul_(1000)
    order = criterion("magnitude").order(structure, plain)
    assert np.array_equal(order, criterion("magnitude").order(structure, scaled))


def test_taylor_ranks_by_what_removal_does_to_a_linear_loss() -> None:
    """Without a non-linearity the first-order effect of a small weight is the effect."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 10, bias=False), nn.Linear(10, 4, bias=False)).eval()
    x = torch.randn(16, 6)
    network = analyse(capture(model, (x,)))
    (structure,) = network.structures.values()
    goal = torch.randn(16, 4)

    def loss(hidden: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        return (goal * (x @ hidden.T @ last.T)).sum()

    parameters = [p.detach().clone().requires_grad_() for p in model.parameters()]
    grads = torch.autograd.grad(loss(*parameters), parameters)
    gradients = dict(zip(("0.weight", "1.weight"), grads, strict=True))
    order = criterion("taylor").order(structure, context_of(network, gradients))
    hidden, last = (p.detach() for p in parameters)
    whole, effect = loss(hidden, last), []
    for unit in range(10):
        without = hidden.clone()
        without[unit] = 0
        effect.append(float((whole - loss(without, last)) ** 2))
    assert np.array_equal(order, np.argsort(effect))
    # Known on the consuming side only, the sums are the same.
    order = criterion("taylor").order(structure, context_of(network, {"1.weight": grads[1]}))
    assert np.array_equal(order, np.argsort(effect))


def context_of(network: Network, gradients: dict[str, torch.Tensor] | None) -> CriterionContext:
    return CriterionContext(network, network.captured.module.state_dict(), {}, gradients)


def test_taylor_without_gradients_says_so(network: Network) -> None:
    structure = next(iter(network.structures.values()))
    with pytest.raises(EdgepruneError, match="needs gradients"):
        criterion("taylor").order(structure, context_of(network, None))


def test_random_depends_on_seed_and_structure(network: Network) -> None:
    structure = next(s for s in network.structures.values() if s.units == 12)
    orders = {
        tuple(criterion("random").order(structure, context(network, seed=s))) for s in range(5)
    }
    assert len(orders) == 5

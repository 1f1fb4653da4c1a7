"""The least-squares refit: ridges by left-out batches, emptied blocks stood in for, constants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgeprune.compression import least_squares
from edgeprune.compression.candidate import survivors
from edgeprune.compression.emptied import emptied_sum
from edgeprune.compression.fidelity import output_error, run_batches
from edgeprune.compression.refit import CachedTargets, LockstepTargets, Scope, refit
from edgeprune.graph.capture import capture
from edgeprune.graph.network import Network, analyse

Batches = list[tuple[Tensor, ...]]


class Chain(nn.Module):
    """Residual blocks, each followed by a ReLU, as in a CIFAR ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1 = nn.ModuleList(nn.Conv2d(8, 12, 3, padding=1, bias=False) for _ in range(4))
        self.conv2 = nn.ModuleList(nn.Conv2d(12, 8, 3, padding=1, bias=False) for _ in range(4))
        self.norm = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for conv1, conv2, norm in zip(self.conv1, self.conv2, self.norm, strict=True):
            x = F.relu(x + norm(conv2(F.relu(conv1(x)))))
        return x.mean((2, 3))


class PreNorm(nn.Module):
    """Two pre-norm feed-forward blocks: nothing stands between their sums."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(2))
        self.up = nn.ModuleList(nn.Linear(8, 32) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(32, 8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            x = x + down(F.gelu(up(norm(x))))
        return x


def make(model: nn.Module, shape: tuple[int, ...]) -> tuple[Network, Batches]:
    generator = torch.Generator().manual_seed(3)
    batches = [(torch.randn(16, *shape, generator=generator),) for _ in range(12)]
    return analyse(capture(model.eval(), (batches[0][0][:1],), batches[0])), batches


def refitted(
    network: Network, batches: Batches, keep: dict[str, list[int]], scope: Scope = "landing"
) -> float:
    """Output error on batches that the refit has not seen."""
    module = network.shrink(keep)
    kept = survivors(network, {name: np.array(k, np.int64) for name, k in keep.items()})
    dense, seen = network.captured.module, batches[:8]
    cached = scope == "landing"
    targets = CachedTargets(dense, seen) if cached else LockstepTargets(dense, seen, module, scope)
    refit(module, seen, targets, kept, (1e-4, 1e-2, 1.0), scope)
    return error(network, module, batches[8:])


def error(network: Network, module: fx.GraphModule, batches: Batches) -> float:
    dense = run_batches(network.captured.module, batches)
    return output_error(run_batches(module, batches), dense)


def emptied(network: Network, *blocks: int) -> dict[str, list[int]]:
    """A choice that empties the hidden layer of some blocks."""
    names = [name for name, s in network.structures.items() if s.removable]
    return {names[block]: [] for block in blocks}


@given(seed=st.integers(0, 10_000), lines=st.integers(3, 8))
@settings(max_examples=20, deadline=None)
def test_with_much_clean_data_the_change_is_that_of_least_squares(seed: int, lines: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 200, lines, generator=generator)
    true = torch.randn(4, lines, generator=generator)
    rest = x @ true.T + 0.5
    found = least_squares.solve(lambda i: (x[i], rest[i]), 8, (1.0, 1e-8))
    torch.testing.assert_close(found.change, true, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.intercept, torch.full((4,), 0.5), rtol=1e-3, atol=1e-3)


def test_where_nothing_can_be_learned_the_strongest_ridge_wins() -> None:
    generator = torch.Generator().manual_seed(0)
    x, rest = (torch.randn(8, 12, 30, generator=generator) for _ in range(2))
    change = least_squares.solve(lambda i: (x[i], rest[i]), 8, (1e-6, 1e-2, 1e6)).change
    assert change.abs().max() < 1e-4


def test_a_layer_stands_in_for_the_emptied_blocks_behind_it() -> None:
    torch.manual_seed(1)
    network, batches = make(Chain(), (3, 8, 8))
    keep = emptied(network, 1, 2)
    module = network.shrink(keep)
    targets = CachedTargets(network.captured.module, batches[:8])
    targets.sums = frozenset()  # every layer to its own sum
    refit(module, batches[:8], targets, lambda tensor, dim: None, (1e-4, 1e-2, 1.0))
    to_its_own_sum = error(network, module, batches[8:])
    assert refitted(network, batches, keep) < 0.97 * to_its_own_sum


def test_the_stem_stands_in_when_the_first_block_is_emptied() -> None:
    torch.manual_seed(1)
    network, batches = make(Chain(), (3, 8, 8))
    module = network.shrink(emptied(network, 0))
    targets = CachedTargets(network.captured.module, batches[:8])
    stem = module.get_parameter("stem.weight").clone()
    refit(module, batches[:8], targets, lambda tensor, dim: None, (1e-2,))
    assert not torch.equal(stem, module.get_parameter("stem.weight"))


@pytest.mark.parametrize("blocks", [(1,), (0, 1)])
def test_emptied_pre_norm_blocks_cost_no_bias(blocks: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    network, batches = make(PreNorm(), (5, 8))
    for down in ("down.0.bias", "down.1.bias"):
        network.captured.module.get_parameter(down).data += 3.0
    keep = emptied(network, *blocks)
    module = network.shrink(keep)
    for index in blocks:  # as after a compensation gone wrong
        module.get_parameter(f"down.{index}.bias").data.zero_()
    targets = CachedTargets(network.captured.module, batches)
    refit(module, batches, targets, lambda tensor, dim: None, (1e-2,))
    dense = run_batches(network.captured.module, batches)
    off = torch.cat([a[0] - b[0] for a, b in zip(run_batches(module, batches), dense, strict=True)])
    assert off.mean((0, 1)).abs().max() < 1e-4


@pytest.mark.parametrize("scope", ["landing", "all"])
def test_refits_repair_narrowed_blocks(scope: Scope) -> None:
    torch.manual_seed(1)
    network, batches = make(Chain(), (3, 8, 8))
    names = [name for name, s in network.structures.items() if s.removable]
    keep = {names[1]: list(range(6)), names[3]: list(range(8))}
    before = error(network, network.shrink(keep), batches[8:])
    assert refitted(network, batches, keep, scope) < 0.9 * before


def test_a_sum_at_the_end_of_a_deep_network_is_looked_at_without_end() -> None:
    graph = fx.Graph()
    value = graph.placeholder("x")
    for _ in range(3000):
        value = graph.call_function(torch.ops.aten.relu.default, (value,))
    other = graph.call_function(torch.ops.aten.tanh.default, (value,))
    assert emptied_sum(graph.call_function(torch.ops.aten.add.Tensor, (value, other))) is None

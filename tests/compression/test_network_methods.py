"""Execution, Gram matrices, distortion and refit on a captured network."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.compression.alternatives import Alternatives, kept_units
from edgeprune.compression.candidate import Candidates
from edgeprune.compression.distortion import interpolate, measure_distortions
from edgeprune.compression.executor import Executor
from edgeprune.compression.fidelity import output_error, run_batches
from edgeprune.compression.gram import input_grams
from edgeprune.compression.offer import needed_grams
from edgeprune.graph.capture import capture
from edgeprune.graph.choices import Choices
from edgeprune.graph.layers import weighted_layers
from edgeprune.graph.network import Network, analyse


class Residual(nn.Module):
    """Convolutions with BatchNorm in residual blocks, a linear branch behind the pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1 = nn.ModuleList(nn.Conv2d(8, 16, 3, 1, 1, bias=False) for _ in range(2))
        self.norm1 = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(2))
        self.conv2 = nn.ModuleList(nn.Conv2d(16, 8, 3, 1, 1, bias=False) for _ in range(2))
        self.norm2 = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))
        self.up, self.down = nn.Linear(8, 24), nn.Linear(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for conv1, norm1, conv2, norm2 in zip(
            self.conv1, self.norm1, self.conv2, self.norm2, strict=True
        ):
            x = F.relu(x + norm2(conv2(F.relu(norm1(conv1(x))))))
        y = x.mean((2, 3))
        return y + self.down(F.gelu(self.up(y)))


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    model = Residual().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    images = torch.randn(2, 3, 10, 10)
    return analyse(capture(model, (images[:1],), (images,)))


@pytest.fixture(scope="module")
def batches() -> list[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(12, 8, 3, 5, 5, generator=generator)
    return [(F.interpolate(images, (10, 10)),) for images in coarse]


def inner(network: Network) -> dict[str, int]:
    return {n: s.units for n, s in network.structures.items() if s.removable}


def offered(network: Network) -> dict[str, Alternatives]:
    return {
        name: Alternatives(name, (0, units // 4, units // 2, units), np.arange(units), np.zeros(4))
        for name, units in inner(network).items()
    }


def candidates(network: Network, batches: list[tuple[Tensor, ...]]) -> Candidates:
    from edgeprune.compression.calibration import Calibration

    calibration = Calibration(tuple(batches), (), (), 12)
    choices = Choices({name: a.levels for name, a in offered(network).items()})
    grams = needed_grams(network, calibration, choices)
    return Candidates(
        network, choices, offered(network), grams, batches[:8], batches[8:], 1e-4, (1e-3, 1e-1)
    )


def test_the_executor_computes_what_the_module_computes(
    network: Network, batches: list[tuple[Tensor, ...]]
) -> None:
    module = network.captured.module
    for found, wanted in zip(
        Executor(module, batches).run(), run_batches(module, batches), strict=True
    ):
        torch.testing.assert_close(found, wanted)


def test_the_executor_forgets_what_nothing_needs_any_more(
    network: Network, batches: list[tuple[Tensor, ...]]
) -> None:
    live = []
    Executor(network.captured.module, batches).run(
        after=lambda node, environment: live.append(len(environment))
    )
    assert max(live) < 8 < len(live)


def test_gram_matrices_are_those_of_the_inputs(
    network: Network, batches: list[tuple[Tensor, ...]]
) -> None:
    module = network.captured.module
    layers = weighted_layers(module)
    grams = input_grams(module, layers.values(), batches)
    up = next(layer for layer in layers.values() if layer.weight == "up.weight")
    seen: list[Tensor] = []
    Executor(module, batches).run(
        before=lambda node, env: seen.extend(env[node.args[0]]) if node is up.node else None  # type: ignore[index, arg-type]
    )
    rows = torch.cat(seen).double()
    torch.testing.assert_close(grams[up.name], rows.T @ rows / len(rows), rtol=1e-4, atol=1e-6)


def test_convolutions_as_matrices_give_the_convolutions_output(
    network: Network, batches: list[tuple[Tensor, ...]]
) -> None:
    module = network.captured.module
    (layer,) = (x for x in weighted_layers(module).values() if x.weight == "conv2.0.weight")
    weight = dict(module.named_parameters())["conv2.0.weight"].detach()
    value = torch.randn(2, 16, 10, 10)
    for every in (1, 2, 4):
        wanted = layer.flatten_output(F.conv2d(value, weight, padding=1), every)
        found = layer.rows(value, weight, every) @ weight.flatten(1).T
        assert len(wanted) == 2 * (-(-10 // every)) ** 2
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_distortions_fall_with_the_level_and_end_at_nothing(
    network: Network, batches: list[tuple[Tensor, ...]]
) -> None:
    found = candidates(network, batches)
    levels = {name: a.levels for name, a in found.alternatives.items()}
    orders = {name: a.order for name, a in found.alternatives.items()}
    structures = [network.structures[name] for name in levels]
    distortions = measure_distortions(
        network.captured.module, structures, levels, orders, found.grams, batches[:4], 1e-4
    )
    for name, values in distortions.items():
        assert values[-1] == 0, name
        assert (np.diff(values) <= 0).all(), name
        assert values[0] > 0, name


def test_the_price_of_an_alternative_is_the_error_of_the_network_shrunk_to_it(
    network: Network, batches: list[tuple[Tensor, ...]]
) -> None:
    found = candidates(network, batches)
    found.refitting, found._targets = False, None
    dense = run_batches(network.captured.module, batches[8:])
    for name, alternative in found.alternatives.items():
        half = alternative.levels[2]
        measured = measure_distortions(
            network.captured.module,
            [network.structures[name]],
            {name: (half, alternative.levels[-1])},
            {name: alternative.order},
            found.grams,
            batches[8:],
            1e-4,
        )[name][0]
        full = {n: a.levels[-1] for n, a in found.alternatives.items()}
        shrunk = found.build({**full, name: half})
        error = output_error(run_batches(shrunk, batches[8:]), dense)
        assert measured == pytest.approx(error, rel=1e-2, abs=1e-9)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_refit_repairs(network: Network, batches: list[tuple[Tensor, ...]], level: int) -> None:
    found = candidates(network, batches)
    levels = {name: a.levels[level] for name, a in found.alternatives.items()}
    refitted, note = found.build_final(levels, batches[:8])
    found._targets = None
    plain = found.build(levels)
    assert found.error(refitted) <= found.error(plain)
    if level:
        assert found.error(refitted) < 0.9 * found.error(plain)
        assert note.startswith("refit")


def test_nothing_removed_is_nothing_lost(
    network: Network, batches: list[tuple[Tensor, ...]]
) -> None:
    found = candidates(network, batches)
    full = {name: a.levels[-1] for name, a in found.alternatives.items()}
    assert kept_units(found.alternatives, full) == {}
    assert found.loss(full) < 1e-8


def test_interpolated_prices_keep_their_order() -> None:
    values = interpolate((0, 8, 16, 24, 32), {0: 1.0, 16: 0.1, 24: 0.2})
    assert values[-1] == 0
    assert (np.diff(values) <= 0).all()
    assert values[0] == pytest.approx(1.0)

"""Formats of layers: what they cost at the output, and networks built with them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_block_sparse import alive_blocks, random_gram, relative_error
from test_network_methods import Residual
from torch import Tensor

from edgeprune.compression.block_sparse import block_sparse
from edgeprune.compression.calibration import Calibration
from edgeprune.compression.candidate import Candidates
from edgeprune.compression.fidelity import output_error, run_batches
from edgeprune.compression.format_distortion import measure_format_distortions
from edgeprune.compression.offer import needed_grams
from edgeprune.compression.sparsify import carefully, quickly
from edgeprune.formats import DENSE, DENSE_INT8, Format
from edgeprune.graph.capture import capture
from edgeprune.graph.choices import Choices
from edgeprune.graph.layers import weighted_layers
from edgeprune.graph.network import Network, analyse
from edgeprune.graph.simulation import simulate
from edgeprune.graph.sites import Option, Site

Batches = list[tuple[Tensor, ...]]
SPARSITIES = (0.25, 0.5, 0.75)
LAYERS = ("up", "down")


@settings(max_examples=30, deadline=None)
@given(
    block=st.sampled_from([(1, 1), (4, 1), (2, 4)]),
    groups=st.integers(1, 6),
    width=st.integers(1, 8),
    sparsity=st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_all_blocks_at_once_leave_the_least_squares_solution_too(
    block: tuple[int, int], groups: int, width: int, sparsity: float, seed: int
) -> None:
    outputs, inputs = groups * block[0], width * 4
    matrix = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    gram = random_gram(inputs, seed)
    ridge = 1e-2 * gram.diagonal().mean() * torch.eye(inputs, dtype=torch.float64)
    found = block_sparse(matrix, gram, block, sparsity, 1e-2)
    alive = alive_blocks(found, block)
    assert alive.numel() - int(alive.sum()) == round(sparsity * alive.numel())
    slope = (found - matrix).double() @ (gram + ridge)
    kept = alive.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    scale = (matrix.double() @ (gram + ridge)).abs().max()
    assert float((slope * kept).abs().max()) <= 2e-3 * float(scale)


def test_care_pays() -> None:
    matrix = torch.randn(64, 96, generator=torch.Generator().manual_seed(0))
    gram, format_ = random_gram(96, 0), Format("f32", (4, 1), 0.7)
    quick, careful = (
        relative_error(matrix, sparsify(matrix, gram, format_), gram)
        for sparsify in (quickly, carefully)
    )
    assert careful < quick < 1


def test_inputs_that_do_not_fill_a_block_are_no_obstacle() -> None:
    matrix = torch.randn(32, 27, generator=torch.Generator().manual_seed(0))
    for sparsify in (quickly, carefully):
        found = sparsify(matrix, random_gram(27, 0), Format("int8", (16, 4), 0.5))
        assert found.shape == matrix.shape
        assert torch.isfinite(found).all()
        assert 0 < relative_error(matrix, found, random_gram(27, 0)) < 1


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 10, 10)
    return analyse(capture(Residual().eval(), (images[:1],), (images,)))


@pytest.fixture(scope="module")
def batches() -> Batches:
    coarse = torch.randn(12, 8, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    return [(torch.nn.functional.interpolate(images, (10, 10)),) for images in coarse]


def options() -> tuple[Option, ...]:
    sparse = [Format("int8", (4, 1), s) for s in SPARSITIES]
    sparse += [Format("f32", (1, 1), s) for s in SPARSITIES]
    return tuple((f, f) for f in (DENSE, DENSE_INT8, *sparse))


def choices(network: Network) -> Choices:
    site = Site("mlp", LAYERS, in_a_row=True)
    levels = {n: tuple(range(s.units + 1)) for n, s in network.structures.items() if s.removable}
    return Choices(levels, {"mlp": site}, {"mlp": options()})


def grams(network: Network, batches: Batches) -> dict[str, Tensor]:
    calibration = Calibration(tuple(batches), (), (), len(batches))
    return needed_grams(network, calibration, choices(network))


def test_dense_costs_nothing_and_more_zeros_more(network: Network, batches: Batches) -> None:
    found = measure_format_distortions(
        network.captured.module, choices(network), grams(network, batches), batches
    )["mlp"]
    assert found[0] == 0
    assert 0 < found[1] < 0.1
    for family in (found[2:5], found[5:8]):
        assert np.all(np.diff(family) > 0)
    # Blocks of one weight are chosen more freely, and nothing is rounded.
    assert np.all(found[5:8] < found[2:5])


def test_the_cost_is_near_the_error_of_the_network_with_that_format_alone(
    network: Network, batches: Batches
) -> None:
    module, statistics = network.captured.module, grams(network, batches)
    found = measure_format_distortions(module, choices(network), statistics, batches)["mlp"]
    dense = run_batches(module, batches)
    for place, option in enumerate(options()):
        if place < 2:
            continue
        masked = network.shrink({})
        for name, format_ in zip(LAYERS, option, strict=True):
            weight = masked.get_parameter(weighted_layers(masked)[name].weight)
            with torch.no_grad():
                weight.copy_(quickly(weight, statistics[name], format_))
        computed = simulate(masked, dict(zip(LAYERS, option, strict=True)))
        error = output_error(run_batches(computed, batches), dense)
        assert 0.4 < found[place] / error < 2.5, option


@pytest.mark.parametrize("refitting", [True, False])
def test_a_built_plan_has_the_zeros_of_its_formats(
    network: Network, batches: Batches, refitting: bool
) -> None:
    offered = choices(network)
    found = Candidates(
        network,
        offered,
        {},
        grams(network, batches),
        batches[:8],
        batches[8:],
        1e-4,
        (1e-3, 1e-1),
        refitting,
    )
    errors = []
    for place in (0, 2, 3, 4):
        plan = {"mlp": place}
        module, note = found.build_final(plan, batches[:8])
        formats = found.formats(plan, module)
        for name, format_ in formats.items():
            weight = module.get_parameter(weighted_layers(module)[name].weight)
            assert format_.block is not None
            alive = alive_blocks(weight, format_.block).float().mean()
            assert 1 - float(alive) == pytest.approx(format_.sparsity, abs=0.02)
        errors.append(found.error(module, formats))
        assert found.loss(plan) == pytest.approx(errors[-1], rel=1.0, abs=0.02)
        assert note.startswith("refit") == (refitting and place > 0) or place == 0
    assert errors == sorted(errors)

"""Recovery of layers that are sparse or in int8: zeros stay, and what is trained is what runs."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_networks
import torch
from torch import Tensor, fx

from edgeprune.errors import InputError
from edgeprune.formats import DENSE_INT8, Format, Formats, parse_format
from edgeprune.graph.blocks import kept_blocks
from edgeprune.graph.capture import capture
from edgeprune.graph.simulation import simulate
from edgeprune.kernels import pack
from edgeprune.recipe import RecoveryRecipe
from edgeprune.recovery.data import Draw, TrainingData
from edgeprune.recovery.distil import Recovered, recover
from edgeprune.recovery.features import return_also
from edgeprune.recovery.holdout import Holdout
from edgeprune.recovery.masks import Masks
from edgeprune.recovery.settings import resolve
from edgeprune.recovery.trainer import Trainer
from edgeprune.recovery.working import training_copy

NETWORKS = ("mlp", "cnn", "encoder")
RECIPE = RecoveryRecipe(steps=60, precision="f32", learning_rate=5e-3)


def run(
    name: str, folder: Path, *, minutes: float = 1.0, **choices: object
) -> tuple[Recovered, dict[str, Tensor], Formats]:
    """A recovery of a student with layers in several formats, its first weights and formats."""
    student, teacher, batches = getattr(small_networks, name)()
    formats = small_networks.store_in_formats(student)
    before = {key: value.detach().clone() for key, value in student.state_dict().items()}
    recipe = RecoveryRecipe(**{**vars(RECIPE), **choices})  # type: ignore[arg-type]
    recovered = recover(
        student, teacher, batches, recipe, minutes=minutes, folder=folder, formats=formats
    )
    return recovered, before, formats


def assert_zeros_stayed(
    module: fx.GraphModule, before: dict[str, Tensor], formats: Formats
) -> None:
    """What was removed is zero; something else in each of these weights has changed."""
    sparse = [name for name, chosen in formats.items() if chosen.sparse]
    assert sparse
    for node in module.graph.nodes:
        if node.name not in sparse:
            continue
        name = str(node.args[1].target)
        weight = module.state_dict()[name]
        kept = kept_blocks(before[name], formats[node.name])
        assert 0 < int((kept == 0).sum()) < kept.numel()
        assert not weight[kept == 0].any()
        assert not torch.equal(weight, before[name])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_zeros_stay_while_the_rest_learns(name: str, precision: str, tmp_path: Path) -> None:
    recovered, before, formats = run(name, tmp_path, precision=precision, steps=120)
    assert_zeros_stayed(recovered.module, before, formats)
    assert 1.0 - recovered.best_fidelity < 0.9 * (1.0 - recovered.history[0]["fidelity"])


def test_zeros_stay_when_training_goes_back(tmp_path: Path) -> None:
    recovered, before, formats = run(
        "mlp", tmp_path, learning_rate=3.0, gradient_clip=0.0, warmup=0.0, steps=200
    )
    assert any("diverged" in note for note in recovered.notes)
    assert_zeros_stayed(recovered.module, before, formats)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_masks_hold_where_the_optimiser_still_has_momentum(weight_decay: float) -> None:
    student, _, batches = small_networks.mlp()
    (batch,) = next(iter(batches()))
    optimiser = torch.optim.AdamW(student.parameters(), lr=0.1, weight_decay=weight_decay)
    student(batch)[0].square().sum().backward()
    optimiser.step()
    formats = small_networks.store_in_formats(student)
    before = {key: value.detach().clone() for key, value in student.state_dict().items()}
    masks = Masks(student, formats)
    for _ in range(3):
        optimiser.zero_grad()
        student(batch)[0].square().sum().backward()
        masks.apply_to_gradients()
        optimiser.step()
        masks.apply_to_weights()
        assert_zeros_stayed(student, before, formats)


def test_what_is_removed_has_no_gradient() -> None:
    student, _, batches = small_networks.cnn()
    formats = small_networks.store_in_formats(student)
    student(*next(iter(batches())))[0].square().sum().backward()
    Masks(student, formats).apply_to_gradients()
    for node in student.graph.nodes:
        if node.name in formats:
            weight = student.get_parameter(node.args[1].target)
            format_ = formats[node.name]
            expected = (
                kept_blocks(weight, format_) > 0
                if format_.sparse
                else torch.ones_like(weight, dtype=torch.bool)
            )
            assert torch.equal(weight.grad != 0, expected)


def test_gradients_are_masked_before_their_norm_is_clipped() -> None:
    student, teacher, batches = small_networks.mlp()
    (batch,) = next(iter(batches()))
    formats = small_networks.store_in_formats(student)
    before = student.first.weight.detach().clone()
    recipe = replace(RECIPE, gradient_clip=0.01)
    trainer = Trainer(
        student, teacher, (), [1.0], recipe, resolve(recipe, student), "f32", formats=formats
    )
    trainer.gradients(Draw((batch,), torch.arange(len(batch))), 0)
    student.first.weight.grad[before == 0] = 1e6
    assert trainer.update(1e-3)
    # All of the norm that a step may have is left for what is there.
    norms = [p.grad.norm() for p in student.parameters()]
    assert float(torch.stack(norms).norm()) == pytest.approx(0.01, rel=1e-3)
    for optimiser in trainer.optimisers:
        assert not optimiser.state[student.first.weight]["exp_avg"][before == 0].any()
    assert torch.equal(student.first.weight == 0, before == 0)


def test_a_block_goes_only_if_all_of_it_is_zero() -> None:
    weight = torch.ones(32, 10)
    weight[:16, :4] = 0.0  # a whole block of 16x4
    weight[1:16, 4:8] = 0.0  # of another something is left
    weight[16:, 8:] = 0.0  # the corner's narrower block
    expected = torch.ones(32, 10)
    expected[:16, :4] = expected[16:, 8:] = 0.0
    assert torch.equal(kept_blocks(weight, Format("int8", (16, 4), 0.5)), expected)


def test_blocks_are_as_the_outputs_allow() -> None:
    weight = torch.ones(6, 2)
    weight[:2] = 0.0  # a block of 4x1 does not divide six outputs
    assert torch.equal(kept_blocks(weight, Format("f32", (4, 1), 0.5)), weight)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_blocks_of_a_convolution_lie_in_its_matrix(layout: torch.memory_format) -> None:
    weight = torch.ones(16, 3, 2, 2)
    weight.flatten(1)[:, 4:8] = 0.0
    kept = kept_blocks(weight.contiguous(memory_format=layout), Format("int8", (16, 4), 0.5))
    assert torch.equal(kept, weight) and kept.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_the_working_copy_computes_as_the_formats(name: str, precision: str) -> None:
    student, _, batches = getattr(small_networks, name)()
    formats = small_networks.store_in_formats(student)
    batch = next(iter(batches()))
    wanted = simulate(student, formats)(*batch)[0]
    found = training_copy(student, precision=precision, formats=formats)(*batch)[0]  # type: ignore[arg-type]
    tolerance = 1e-5 if precision == "f32" else 0.03
    assert float((found - wanted).norm().detach()) < tolerance * float(wanted.norm().detach())


def test_in_bf16_steps_of_a_weight_are_those_of_float32() -> None:
    """Weights between two steps, which bfloat16 cannot tell apart, are rounded the right way."""
    student, _, _ = small_networks.mlp()
    with torch.no_grad():
        student.first.weight.fill_(101.4999)  # 101.5 in bfloat16, halfway to 102
        student.first.weight[:, 0] = 127.0
        student.first.bias.zero_()
    formats = {"first": parse_format("int8-1x1-10")}
    working = training_copy(student, ["first"], precision="bf16", formats=formats)
    x = torch.zeros(1, 8)
    x[0, 1] = 1.0
    assert torch.equal(working(x)[1].float(), torch.full((1, 6), 101.0))


@pytest.mark.parametrize("block", [(1, 1), (4, 1), (16, 4)])
def test_what_was_trained_is_what_the_packed_weight_computes(
    block: tuple[int, int], tmp_path: Path
) -> None:
    student, teacher, batches = small_networks.mlp()
    chosen = parse_format(f"int8-{block[0]}x{block[1]}-50")
    small_networks.zero_blocks(student.second.weight, chosen)
    formats = {"second": chosen}
    recovered = recover(
        student, teacher, batches, RECIPE, minutes=1, folder=tmp_path, formats=formats
    )
    weight, bias = recovered.module.second.weight, recovered.module.second.bias
    source = next(n for n in student.graph.nodes if n.name == "second").args[0].name
    simulation = return_also(simulate(recovered.module, formats), [source, "second"])
    with torch.no_grad():
        _, x, simulated = simulation(*next(iter(batches())))
    packed = pack(weight, block, "int8")
    np.testing.assert_allclose(packed.multiply(x, bias.detach()), simulated, rtol=1e-5, atol=1e-5)
    assert packed.sparsity > 0.2 or block == (16, 4)


def coarse() -> tuple[fx.GraphModule, fx.GraphModule, small_networks.Batches]:
    """A student near its teacher, with a weight that takes the steps from all others.

    The first input is small and its weights large, so that rounding by the largest weight of an
    output leaves next to nothing of the others.
    """
    torch.manual_seed(0)
    mix = torch.randn(3, 8)
    data = [(torch.randn(24, 3) @ mix / torch.tensor([100.0] + [1.0] * 7),) for _ in range(12)]
    model = small_networks.Mlp(32).eval()
    with torch.no_grad():
        model.first.weight[:, 0] *= 100.0
    example, sample = (data[0][0][:1],), data[0]
    teacher = capture(copy.deepcopy(model), example, sample).module
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.0 + 0.2 * torch.randn_like(parameter))
    return capture(model, example, sample).module, teacher, lambda: iter(data)


def test_training_with_rounding_beats_rounding_afterwards(tmp_path: Path) -> None:
    errors = {}
    for aware in (False, True):
        student, teacher, batches = coarse()
        formats = dict.fromkeys(("first", "second", "third"), DENSE_INT8)
        recipe = RecoveryRecipe(steps=300, precision="f32", learning_rate=3e-3)
        recovered = recover(
            student,
            teacher,
            batches,
            recipe,
            minutes=1,
            folder=tmp_path / str(aware),
            formats=formats if aware else {},
        )
        held = TrainingData(batches, size=0, holdout=recipe.holdout, seed=0).held
        rounded = Holdout(teacher, held).judge(simulate(recovered.module, formats)).fidelity
        errors[aware] = 1.0 - rounded
        if aware:
            assert rounded == pytest.approx(recovered.best_fidelity, abs=1e-5)
    assert errors[True] < 0.5 * errors[False]


def test_a_checkpoint_of_other_formats_is_not_taken_up(tmp_path: Path) -> None:
    results = []
    for place, percents in (("a", (50, 60)), ("b", (60,))):
        for percent in percents:
            student, teacher, batches = small_networks.mlp()
            formats = {"first": DENSE_INT8, "second": parse_format(f"int8-4x1-{percent}")}
            if percent == 60:
                formats.pop("first")
            recovered = recover(
                student,
                teacher,
                batches,
                RECIPE,
                minutes=1,
                folder=tmp_path / place,
                formats=formats,
            )
        results.append(recovered.module.state_dict())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_a_format_of_no_layer_is_refused(tmp_path: Path) -> None:
    student, teacher, batches = small_networks.mlp()
    with pytest.raises(InputError, match="'nowhere' has the format int8"):
        recover(
            student,
            teacher,
            batches,
            RECIPE,
            minutes=1,
            folder=tmp_path,
            formats={"nowhere": DENSE_INT8},
        )

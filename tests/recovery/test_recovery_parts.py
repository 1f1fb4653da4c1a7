"""The parts of recovery: data, features, working copies, losses, schedules."""

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import small_networks
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeprune.errors import TaskError
from edgeprune.graph.capture import capture
from edgeprune.graph.network import analyse
from edgeprune.recipe import LossRecipe, RecoveryRecipe
from edgeprune.recovery.answers import answers_of, answers_pay
from edgeprune.recovery.augment import augmented
from edgeprune.recovery.data import Draw, Position, TrainingData
from edgeprune.recovery.features import joints, paired_joints, return_also
from edgeprune.recovery.losses import feature_loss, kl_loss, output_loss, similarity_loss
from edgeprune.recovery.precision import choose_precision
from edgeprune.recovery.schedules import Pace, affordable_end, rate_factor
from edgeprune.recovery.settings import first_rate_scale, resolve
from edgeprune.recovery.working import inference_copy, set_layout, training_copy

NETWORKS = ("mlp", "cnn", "encoder")


def numbered(sizes: list[int], lengths: list[int]) -> list[tuple[Tensor, Tensor]]:
    """Batches whose samples carry their own number in every element."""
    batches, number = [], 0
    for size, length in zip(sizes, lengths):
        rows = torch.arange(number, number + size)[:, None].expand(size, length)
        batches.append((rows.clone(), rows.float()))
        number += size
    return batches


shapes = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=2, max_size=14)


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 7), st.integers(0, 3), st.sampled_from([1, 40, 400, 1 << 20]))
def test_an_epoch_holds_no_sample_twice_and_none_held_back(
    shape: list[tuple[int, int]], size: int, seed: int, window_bytes: int
) -> None:
    batches = numbered([s for s, _ in shape], [length for _, length in shape])
    data = TrainingData(
        lambda: iter(batches), size=size, holdout=0.3, seed=seed, window_bytes=window_bytes
    )
    held = [int(row[0]) for batch in data.held for row in batch[0]]
    epochs: dict[int, list[int]] = {}
    for draw, position in data.stream(Position()):
        if position.epoch > 1:
            break
        ids, values = draw.tensors
        assert torch.equal(ids.float(), values)
        epochs.setdefault(position.epoch, []).extend(int(row[0]) for row in ids)
    everything = set(range(sum(s for s, _ in shape)))
    for seen in epochs.values():
        assert held and len(set(held + seen)) == len(held + seen)
        missing = everything - set(held + seen)
        # Of each shape, in each window, fewer than a batch may wait.
        assert len(missing) <= max(size - 1, 0) * len(batches)
        assert not missing or size > 0


def test_every_sample_has_its_turn() -> None:
    data = TrainingData(lambda: iter(numbered([9] * 4, [2] * 4)), size=8, holdout=0.1, seed=0)
    seen = {
        int(row[0]) for draw, _ in islice(data.stream(Position()), 30) for row in draw.tensors[0]
    }
    assert len(seen) == 27


@settings(max_examples=30, deadline=None)
@given(shapes, st.integers(0, 5), st.integers(0, 20), st.sampled_from([60, 1 << 20]))
def test_the_stream_goes_on_from_any_position(
    shape: list[tuple[int, int]], size: int, taken: int, window_bytes: int
) -> None:
    batches = numbered([s for s, _ in shape], [length for _, length in shape])

    def stream(position: Position) -> Iterator[tuple[Draw, Position]]:
        return TrainingData(
            lambda: iter(batches), size=size, holdout=0.3, seed=1, window_bytes=window_bytes
        ).stream(position)

    whole = list(islice(stream(Position()), taken + 6))
    position = whole[taken - 1][1] if taken else Position()
    for (left, at), (right, there) in zip(whole[taken:], stream(position)):
        assert at == there
        assert all(torch.equal(a, b) for a, b in zip(left.tensors, right.tensors))
        assert torch.equal(left.rows, right.rows)


def test_epochs_differ_in_order() -> None:
    data = TrainingData(lambda: iter(numbered([8] * 8, [2] * 8)), size=4, holdout=0.1, seed=0)
    epochs: dict[int, list[int]] = {}
    for draw, position in islice(data.stream(Position()), 28):
        epochs.setdefault(position.epoch, []).extend(draw.tensors[0][:, 0].tolist())
    assert sorted(epochs[0]) == sorted(epochs[1]) and epochs[0] != epochs[1]


@settings(max_examples=20, deadline=None)
@given(shapes, st.integers(0, 6))
def test_rows_number_the_samples_of_the_window(shape: list[tuple[int, int]], size: int) -> None:
    batches = numbered([s for s, _ in shape], [length for _, length in shape])
    data = TrainingData(lambda: iter(batches), size=size, holdout=0.3, seed=5)
    numbers = torch.cat([batch[0][:, 0] for batch in data.first_window])
    for draw, _ in islice(data.stream(Position()), 12):
        assert torch.equal(numbers[draw.rows], draw.tensors[0][:, 0])


def test_answers_are_those_of_the_teacher_and_are_read_again(tmp_path: Path) -> None:
    _, teacher, batches = small_networks.encoder()
    data = TrainingData(batches, size=5, holdout=0.2, seed=0)
    copy = inference_copy(teacher)
    for _ in range(2):
        answers = answers_of(copy, data.first_window, tmp_path, "teacher", lambda note: None)
        for draw, _ in islice(data.stream(Position()), 10):
            (wanted,) = copy(*draw.tensors)
            assert torch.allclose(answers.of(draw.rows)[0], wanted, atol=1e-5)
    answers_of(copy, data.first_window, tmp_path, "another teacher", lambda note: None)
    assert len(list(tmp_path.iterdir())) == 2


def test_answers_pay_only_over_several_epochs_and_for_outputs_of_one_shape() -> None:
    _, teacher, batches = small_networks.encoder()
    window = list(batches())
    samples = sum(len(batch[0]) for batch in window)
    assert answers_pay(teacher, window, 5.0 * samples)
    assert not answers_pay(teacher, window, 1.0 * samples)
    states = return_also(teacher, ["norm"])
    assert not answers_pay(states, window, 5.0 * samples)


def test_a_single_sample_cannot_be_held_back() -> None:
    with pytest.raises(TaskError, match="too few"):
        TrainingData(lambda: iter([(torch.ones(1, 3),)]), size=4, holdout=0.1, seed=0)


def test_a_single_batch_is_split() -> None:
    data = TrainingData(lambda: iter(numbered([16], [2])), size=4, holdout=0.1, seed=0)
    assert len(data.held[0][0]) == 2 and len(data.first_window[0][0]) == 14


def test_joints_of_a_residual_network_are_the_ends_of_its_blocks() -> None:
    student, teacher, _ = small_networks.cnn()
    assert [n.name for n in joints(teacher.graph)] == ["relu", "relu_2", "mean", "head"]
    assert paired_joints(student.graph, teacher.graph) == ("relu", "relu_2", "mean")


def test_joints_of_an_encoder_are_its_norms_and_the_pooled_state() -> None:
    student, teacher, _ = small_networks.encoder()
    names = paired_joints(student.graph, teacher.graph)
    assert names[:2] == ("words", "norm") and len(names) == 4


def test_nodes_of_pruned_width_are_not_compared() -> None:
    student, teacher, _ = small_networks.mlp()
    assert paired_joints(student.graph, teacher.graph) == ("relu_1",)


@pytest.mark.parametrize("name", NETWORKS)
def test_returning_features_changes_no_output(name: str) -> None:
    student, teacher, batches = getattr(small_networks, name)()
    names = paired_joints(student.graph, teacher.graph)
    batch = next(iter(batches()))
    outputs = student(*batch)
    returned = return_also(student, names)(*batch)
    assert len(returned) == len(outputs) + len(names)
    assert all(torch.equal(a, b) for a, b in zip(outputs, returned))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("precision", "tolerance"), [("f32", 1e-5), ("bf16", 0.05)])
def test_working_copies_compute_the_same(name: str, precision: str, tolerance: float) -> None:
    student, teacher, batches = getattr(small_networks, name)()
    names = paired_joints(student.graph, teacher.graph)
    for batch in islice(batches(), 3):
        wanted = return_also(teacher, names)(*batch)
        for make in (training_copy, inference_copy):
            found = make(teacher, names, precision=precision)(*batch)
            assert found[0].dtype == torch.float32
            for a, b in zip(found, wanted, strict=True):
                assert float(((a.float() - b).norm() / b.norm()).detach()) < tolerance


@pytest.mark.parametrize("name", NETWORKS)
def test_bf16_gradients_reach_the_shared_float32_parameters(name: str) -> None:
    student, _, batches = getattr(small_networks, name)()
    batch = next(iter(batches()))
    gradients = []
    for precision in ("f32", "bf16"):
        student.zero_grad()
        output = training_copy(student, precision=precision)(*batch)[0]
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        assert all(
            p.grad is not None and p.grad.dtype == torch.float32 for p in student.parameters()
        )
        gradients.append(torch.cat([p.grad.flatten() for p in student.parameters()]))
    cosine = torch.cosine_similarity(gradients[0], gradients[1], dim=0)
    assert float(cosine) > 0.98


def test_a_large_table_gets_gradients_of_the_rows_it_looked_up() -> None:
    student, _, batches = small_networks.lookup()
    ids, mask = next(iter(batches()))
    output = training_copy(student, precision="bf16")(ids, mask)[0]
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    gradient = student.words.weight.grad
    assert gradient.is_sparse and gradient.dtype == torch.float32
    assert set(gradient.coalesce().indices()[0].tolist()) <= set(ids.flatten().tolist())


def test_training_by_batch_statistics_moves_the_running_ones() -> None:
    student, _, batches = small_networks.cnn()
    before = student.norm.running_mean.clone()
    training_copy(student, batchnorm=False)(*next(iter(batches())))
    assert torch.equal(student.norm.running_mean, before)
    training_copy(student, batchnorm=True)(*next(iter(batches())))
    assert not torch.equal(student.norm.running_mean, before)


def test_what_an_emptied_layer_gives_is_read_in_bf16_too() -> None:
    torch.manual_seed(0)
    batch = (torch.randn(4, 3, 8, 8),)
    network = analyse(capture(small_networks.Cnn(16).eval(), batch))
    inner = next(s.name for s in network.structures.values() if s.units == 16)
    emptied = network.shrink({inner: []})
    for make in (training_copy, inference_copy):
        found, wanted = make(emptied, precision="bf16")(*batch)[0], emptied(*batch)[0]
        assert float(((found - wanted).norm() / wanted.norm()).detach()) < 0.05
    precision, reason = choose_precision("bf16", emptied, batch)
    assert precision == "bf16", reason


def test_a_causal_attention_survives_bf16() -> None:
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(8, 24)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.mix(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    torch.manual_seed(0)
    batch = (torch.randn(2, 5, 8),)
    module = capture(Causal().eval(), batch).module
    found, wanted = training_copy(module, precision="bf16")(*batch)[0], module(*batch)[0]
    assert torch.allclose(found, wanted, atol=0.05)
    assert not torch.allclose(wanted, torch.zeros_like(wanted), atol=0.05)


def test_arithmetic_that_spoils_the_network_is_refused() -> None:
    class Fine(nn.Module):
        """Lives on differences that bfloat16 cannot hold."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((4,), 1000.0))

        def forward(self, x: Tensor) -> Tensor:
            return (x + self.weight) - self.weight

    batch = (torch.rand(3, 4),)
    module = capture(Fine().eval(), batch).module
    precision, reason = choose_precision("bf16", module, batch)
    assert precision == "f32" and "bf16 changes the outputs" in reason


def test_layouts_keep_values() -> None:
    student, _, batches = small_networks.cnn()
    batch = next(iter(batches()))
    before = student(*batch)[0]
    set_layout(student, torch.channels_last)
    assert torch.allclose(student(*batch)[0], before, atol=1e-6)


def test_terms_are_shares_of_the_teacher() -> None:
    torch.manual_seed(0)
    teacher = torch.randn(64, 10) + 3.0
    mean = teacher.mean(0).expand_as(teacher)
    variance = float((teacher - mean).square().sum() / len(teacher))
    assert float(output_loss(mean, teacher, variance)) == pytest.approx(1.0, rel=1e-4)
    assert float(feature_loss(torch.zeros_like(teacher), teacher)) == pytest.approx(1.0)
    for loss in (feature_loss, similarity_loss, kl_loss):
        assert float(loss(teacher, teacher)) == pytest.approx(0.0, abs=1e-6)
        assert float(loss(teacher + torch.randn(64, 10), teacher)) > 0.0


@given(
    st.floats(0, 0.4),
    st.sampled_from(["cosine", "linear", "constant"]),
    st.lists(st.floats(0, 1), min_size=2, max_size=20),
)
def test_the_rate_rises_then_falls(warmup: float, shape: str, shares: list[float]) -> None:
    ordered = sorted(shares)
    factors = [rate_factor(share, warmup, shape) for share in ordered]
    assert all(0.0 <= factor <= 1.0 for factor in factors)
    rising = [f for share, f in zip(ordered, factors) if share < warmup]
    falling = [f for share, f in zip(ordered, factors) if share >= warmup]
    assert rising == sorted(rising) and falling == sorted(falling, reverse=True)
    if shape != "constant":
        assert rate_factor(1.0, warmup, shape) == pytest.approx(0.0, abs=1e-12)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 400)), max_size=8))
def test_a_replanned_pace_never_jumps_and_ends_at_one(plans: list[tuple[int, int]]) -> None:
    pace, step = Pace(0, 0.0, 100), 0
    for ahead, left in plans:
        if pace.at(step) >= 1.0:
            break
        step = min(step + ahead, pace.end - 1)
        before = pace.at(step)
        pace = pace.replanned(step, step + left)
        assert pace.at(step) == pytest.approx(before)
        assert pace.at(step) <= pace.at(step + 1) <= 1.0
    assert pace.at(pace.end) == 1.0


def test_the_end_is_what_the_time_left_affords() -> None:
    assert affordable_end(10, 100.0, 1.0) == 109
    assert affordable_end(10, -5.0, 1.0) == 11


def test_auto_goes_by_the_network_and_the_recipe_goes_first() -> None:
    cnn, encoder = small_networks.cnn()[0], small_networks.encoder()[0]
    recipe = RecoveryRecipe()
    assert resolve(recipe, cnn).learning_rate != resolve(recipe, encoder).learning_rate
    assert resolve(recipe, cnn).augment != "none" and resolve(recipe, encoder).augment == "none"
    own = RecoveryRecipe(learning_rate=0.25, batch=7, loss=LossRecipe(kl=3.0), augment="none")
    chosen = resolve(own, cnn)
    assert (chosen.learning_rate, chosen.batch, chosen.loss.kl) == (0.25, 7, 3.0)
    assert chosen.augment == "none"
    assert chosen.loss.output == resolve(recipe, cnn).loss.output
    assert "0.25" in str(chosen)


def test_a_graph_of_fixed_batch_keeps_the_tasks_batches() -> None:
    module = capture(small_networks.Mlp(6).eval(), (torch.randn(4, 8),)).module
    assert resolve(RecoveryRecipe(batch=32), module).batch == 0


@pytest.mark.parametrize("how", ["shift", "flip", "shift_flip", "none"])
def test_augmentation_keeps_shapes_and_what_is_no_image(how: str) -> None:
    generator = torch.Generator().manual_seed(3)
    images, ids = torch.randn(6, 3, 32, 32), torch.arange(6)
    changed, same = augmented((images, ids), how, generator)
    assert changed.shape == images.shape and same is ids
    assert torch.equal(changed, images) == (how == "none")
    assert math.isclose(float(changed.mean()), float(images.mean()), abs_tol=0.05)


def test_a_student_that_is_nearly_right_learns_in_smaller_steps() -> None:
    auto = RecoveryRecipe()
    scales = [first_rate_scale(auto, fidelity) for fidelity in (-3.0, 0.5, 0.8, 0.92, 1.0)]
    assert scales == sorted(scales, reverse=True)
    assert scales[0] == 1.0 and 0 < scales[-1] < scales[-2] < 0.5
    assert first_rate_scale(RecoveryRecipe(learning_rate=1e-3), 0.99) == 1.0

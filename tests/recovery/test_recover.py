"""Recovery as a caller sees it: it learns, keeps the best, stops, resumes, and survives."""

import copy
import math
import subprocess
import sys
from pathlib import Path

import pytest
import small_networks
import torch
from torch import Tensor, fx, nn

from edgeprune.graph.capture import capture
from edgeprune.graph.network import analyse
from edgeprune.recipe import LossRecipe, RecoveryRecipe
from edgeprune.recovery import checkpoint
from edgeprune.recovery.data import TrainingData
from edgeprune.recovery.distil import Recovered, recover
from edgeprune.recovery.holdout import Holdout
from edgeprune.recovery.losses import LossWeights

NETWORKS = ("mlp", "cnn", "encoder")
HERE = Path(__file__).parent


def run(name: str, folder: Path, *, minutes: float = 1.0, **choices: object) -> Recovered:
    student, teacher, batches = getattr(small_networks, name)()
    recipe = RecoveryRecipe(**{"steps": 60, "precision": "f32", **choices})  # type: ignore[arg-type]
    return recover(student, teacher, batches, recipe, minutes=minutes, folder=folder)


def equal_states(first: fx.GraphModule, second: fx.GraphModule) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_it_comes_nearer_to_the_teacher(name: str, precision: str, tmp_path: Path) -> None:
    recovered = run(name, tmp_path, steps=150, precision=precision, learning_rate=5e-3)
    start, best = recovered.history[0]["fidelity"], recovered.best_fidelity
    assert 1.0 - best < 0.7 * (1.0 - start)
    losses = [entry["loss"] for entry in recovered.history if "loss" in entry]
    assert losses[-1] < losses[0]
    assert all(math.isfinite(value) for entry in recovered.history for value in entry.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_best_fidelity_is_that_of_the_module_on_what_was_held_back(
    name: str, tmp_path: Path
) -> None:
    _, teacher, batches = getattr(small_networks, name)()
    recovered = run(name, tmp_path, steps=30, learning_rate=3e-2, schedule="constant", holdout=0.2)
    held = TrainingData(batches, size=0, holdout=0.2, seed=0).held
    fidelity = Holdout(teacher, held).judge(recovered.module).fidelity
    assert fidelity == pytest.approx(recovered.best_fidelity, abs=1e-5)
    least = min(recovered.history, key=lambda entry: entry["held_back_loss"])
    assert recovered.best_fidelity == least["fidelity"]


def test_the_kept_student_is_the_best_at_what_is_trained(tmp_path: Path) -> None:
    """Classes alone say nothing of the logits' height, so R² falls while they get better."""
    loss = LossRecipe(output=0.0, kl=1.0, features=0.0, similarity=0.0)
    student, teacher, batches = small_networks.mlp()
    with torch.no_grad():
        student.get_parameter("third.bias").add_(3.0)
    recipe = RecoveryRecipe(steps=200, precision="f32", learning_rate=2e-2, loss=loss, holdout=0.2)
    recovered = recover(student, teacher, batches, recipe, minutes=1, folder=tmp_path)
    history = recovered.history
    least = min(history, key=lambda entry: entry["held_back_loss"])
    assert least["held_back_loss"] < 0.5 * history[0]["held_back_loss"]
    assert max(entry["fidelity"] for entry in history) > least["fidelity"]
    held = TrainingData(batches, size=0, holdout=0.2, seed=0).held
    weights = LossWeights(output=0.0, kl=1.0)
    judged = Holdout(teacher, held, weights).judge(recovered.module)
    assert judged.loss == pytest.approx(least["held_back_loss"], rel=1e-4)


def test_features_alone_are_judged_by_the_output(tmp_path: Path) -> None:
    """A start that is nearly right already leaves room for steps that are not."""
    loss = LossRecipe(output=0.0, kl=0.0, features=1.0, similarity=0.0)
    _, teacher, batches = small_networks.cnn()
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student.get_parameter("head.weight").mul_(1.001)
    recipe = RecoveryRecipe(steps=40, precision="f32", loss=loss, batchnorm="frozen")
    recovered = recover(student, teacher, batches, recipe, minutes=1, folder=tmp_path)
    for entry in recovered.history:
        assert entry["held_back_loss"] == pytest.approx(1.0 - entry["fidelity"], abs=1e-5)
    assert recovered.steps == 40
    assert not any("diverg" in note for note in recovered.notes)


class PerPosition(nn.Module):
    """Its output has three dimensions, so there are no classes and no embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@pytest.mark.parametrize(
    ("shape", "weights"),
    [
        ((6, 5, 8), LossWeights(output=0.0, kl=1.0)),
        ((6, 5, 8), LossWeights(output=0.0, similarity=1.0)),
        ((1, 8), LossWeights(output=0.0, similarity=1.0)),
    ],
)
def test_terms_that_do_not_apply_do_not_judge(shape: tuple[int, ...], weights: LossWeights) -> None:
    example = torch.randn(shape)
    teacher, student = (capture(PerPosition().eval(), (example,)).module for _ in range(2))
    judged = Holdout(teacher, [(torch.randn(shape),) for _ in range(4)], weights).judge(student)
    assert judged.loss == pytest.approx(1.0 - judged.fidelity, rel=1e-4)


def test_a_run_repeated_is_equal(tmp_path: Path) -> None:
    first, second = (run("encoder", tmp_path / place) for place in "ab")
    assert equal_states(first.module, second.module)
    assert [e["fidelity"] for e in first.history] == [e["fidelity"] for e in second.history]


def test_another_seed_gives_another_result(tmp_path: Path) -> None:
    first, second = (run("cnn", tmp_path / str(seed), seed=seed) for seed in (0, 1))
    assert not equal_states(first.module, second.module)


@pytest.mark.parametrize("name", [*NETWORKS, "lookup", "cnn-formats", "encoder-formats"])
def test_killed_runs_end_as_unbroken_ones(name: str, tmp_path: Path) -> None:
    """The child kills its own forks with SIGKILL at random times and then compares."""
    done = subprocess.run(
        [sys.executable, str(HERE / "kill_and_resume.py"), name, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[0]) >= 2, "too few runs were killed midway to prove anything"


def test_answers_known_beforehand_teach_the_same(tmp_path: Path) -> None:
    loss = LossRecipe(features=0.0)
    asked = run("encoder", tmp_path / "few", loss=loss, steps=3)
    shared = tmp_path / "shared"
    student, teacher, batches = small_networks.encoder()
    recipe = RecoveryRecipe(steps=200, precision="f32", loss=loss)
    known = recover(
        student, teacher, batches, recipe, minutes=1, folder=tmp_path / "many", shared=shared
    )
    assert len(list(shared.iterdir())) == 1 and not list((tmp_path / "few").glob("answers*"))
    assert known.best_fidelity > asked.best_fidelity


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = run("mlp", tmp_path)
    second = run("mlp", tmp_path)
    assert equal_states(first.module, second.module)
    assert second.history == first.history


def test_a_checkpoint_of_another_recipe_is_not_taken_up(tmp_path: Path) -> None:
    run("mlp", tmp_path)
    other = run("mlp", tmp_path, learning_rate=1e-4)
    fresh = run("mlp", tmp_path / "fresh", learning_rate=1e-4)
    assert equal_states(other.module, fresh.module)


def test_a_checkpoint_of_an_earlier_version_is_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("mlp", tmp_path)
    monkeypatch.setattr(checkpoint, "_VERSION", 1)
    run("mlp", tmp_path, steps=3)
    monkeypatch.undo()
    assert equal_states(run("mlp", tmp_path).module, first.module)


def test_a_torn_checkpoint_starts_anew(tmp_path: Path) -> None:
    first = run("mlp", tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert equal_states(run("mlp", tmp_path).module, first.module)


def test_it_stops_early_without_gain(tmp_path: Path) -> None:
    recovered = run("mlp", tmp_path, steps=4000, learning_rate=1e-9, patience=3, evaluations=100)
    assert recovered.steps < 1000
    assert any("stopped early" in note for note in recovered.notes)


@pytest.mark.parametrize("rate", [30.0, 1e18])
def test_divergence_returns_to_the_best_weights_and_is_reported(
    rate: float, tmp_path: Path
) -> None:
    recovered = run("mlp", tmp_path, learning_rate=rate, gradient_clip=0.0, warmup=0.0)
    assert any("diverged" in note for note in recovered.notes)
    least = min(recovered.history, key=lambda entry: entry["held_back_loss"])
    assert recovered.best_fidelity == least["fidelity"]
    assert all(torch.isfinite(p).all() for p in recovered.module.parameters())


def test_minutes_bound_the_time(tmp_path: Path) -> None:
    import time

    start = time.monotonic()
    told: list[tuple[float, str]] = []
    student, teacher, batches = small_networks.mlp()
    recipe = RecoveryRecipe(steps=0, precision="f32", evaluations=5)
    recovered = recover(
        student,
        teacher,
        batches,
        recipe,
        minutes=0.08,
        folder=tmp_path,
        progress=lambda share, note: told.append((share, note)),
    )
    # How many steps fit depends on the machine; that the end is planned and reached does not.
    assert time.monotonic() - start > 2.0
    last = recovered.history[-1]
    assert 0.5 < last["share"] <= 1.0
    if last["share"] == 1.0:
        assert last["learning_rate"] == pytest.approx(0.0, abs=1e-6)
    assert [share for share, _ in told] == sorted(share for share, _ in told)
    # The first note alone is sure to be shown where there is no terminal.
    assert "learning rate" in told[0][1]


def test_a_machine_that_turns_slow_still_ends_at_a_low_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A clock by its readings: first a hundredth of a second each, then a second.
    readings = [0]

    def clock() -> float:
        readings[0] += 1
        return 0.01 * readings[0] if readings[0] < 800 else 8.0 + (readings[0] - 800)

    monkeypatch.setattr("edgeprune.recovery.distil.time.monotonic", clock)
    recovered = run("mlp", tmp_path, steps=0, minutes=1.0)
    last = recovered.history[-1]
    assert last["share"] == 1.0 and "finished" in recovered.notes
    assert last["minutes"] < 1.03


def test_the_module_is_handed_back_ready_for_export(tmp_path: Path) -> None:
    student, _, batches = small_networks.cnn()
    names = list(student.state_dict())
    recovered = run("cnn", tmp_path)
    assert list(recovered.module.state_dict()) == names
    assert all(p.is_contiguous() and p.grad is None for p in recovered.module.parameters())
    (images,) = next(iter(batches()))
    # Normalised by running statistics: a sample's output does not depend on its neighbours.
    alone, together = recovered.module(images[:1])[0], recovered.module(images)[0][:1]
    assert torch.allclose(alone, together, atol=1e-5)


def test_frozen_statistics_stay(tmp_path: Path) -> None:
    before = {k: v.clone() for k, v in small_networks.cnn()[0].named_buffers()}
    frozen = run("cnn", tmp_path / "a", batchnorm="frozen").module
    assert all(torch.equal(before[k], v) for k, v in frozen.named_buffers())
    moved = run("cnn", tmp_path / "b", batchnorm="train").module
    assert any(not torch.equal(before[k], v) for k, v in moved.named_buffers())


@pytest.mark.parametrize(
    ("term", "name"),
    [("output", "cnn"), ("kl", "cnn"), ("features", "cnn"), ("similarity", "encoder")],
)
def test_each_term_alone_teaches(term: str, name: str, tmp_path: Path) -> None:
    weights = dict.fromkeys(("output", "kl", "features", "similarity"), 0.0)
    loss = LossRecipe(**{**weights, term: 1.0})  # type: ignore[arg-type]
    recovered = run(name, tmp_path, loss=loss, steps=100, evaluations=4)
    losses = [entry["loss"] for entry in recovered.history if "loss" in entry]
    assert 0 < losses[-1] < losses[0]


def test_an_emptied_block_does_not_spoil_the_statistics(tmp_path: Path) -> None:
    _, _, batches = small_networks.cnn()
    images = next(iter(batches()))
    network = analyse(capture(small_networks.Cnn(8).eval(), (images[0][:1],), images))
    emptied = {name: [] for name, s in network.structures.items() if s.removable}
    assert emptied
    recipe = RecoveryRecipe(steps=60, precision="f32", batchnorm="train")
    recovered = recover(
        network.shrink(emptied),
        network.captured.module,
        batches,
        recipe,
        minutes=1,
        folder=tmp_path,
    )
    assert all(torch.isfinite(value).all() for value in recovered.module.state_dict().values())
    losses = [entry["held_back_loss"] for entry in recovered.history]
    assert min(losses) < losses[0]

"""A member for other sizes: an ONNX file that is right at them, or a reason and no file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from edgeprune.errors import UnavailableError, WorkspaceError
from edgeprune.request import Goal
from edgeprune.stages.member import Member
from edgeprune.stages.open_sizes import describe_open_sizes
from edgeprune.stages.run import Run, Subject
from edgeprune.stages.subject import make_subject

HERE = Path(__file__).parent
GOAL = Goal("speedup", 2.0)


@pytest.fixture
def started(tmp_path: Path, opened: Any) -> Iterator[tuple[Run, Subject]]:
    recipe = (HERE / "small_recipe.yaml").read_text(encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(recipe.replace("open_sizes: false", "open_sizes: true"))
    with opened(HERE / "small_task.py", tmp_path / "recipe.yaml", tmp_path / "run") as run:
        yield run, make_subject(run)


def test_the_file_is_right_at_sizes_nobody_deployed(started: tuple[Run, Subject]) -> None:
    run, subject = started
    keep = {n: list(range(0, s.units, 2)) for n, s in subject.network.structures.items()}
    member = Member(subject.network.shrink(keep), keep, {}, [], [])
    found = describe_open_sizes(run, subject, GOAL, member)
    assert found == {"onnx": "2x/model.dynamic.onnx", "axes": [["batch"]]}
    file = run.folder / found["onnx"]
    assert [path.name for path in file.parent.iterdir()] == ["model.dynamic.onnx"]
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    assert (port.name, port.shape) == ("x", ["batch", 3, 24, 24])
    for batch in (1, 3):
        images = torch.randn(batch, 3, 24, 24)
        with torch.no_grad():
            (want,) = member.module(images)
        (have,) = session.run(None, {"x": images.numpy()})
        np.testing.assert_allclose(have, want.numpy(), rtol=1e-4, atol=1e-5)

    before = file.stat().st_mtime_ns
    assert describe_open_sizes(run, subject, GOAL, member) == found  # from what the run kept
    assert file.stat().st_mtime_ns == before


def test_what_differs_in_the_runtime_is_not_published(
    started: tuple[Run, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, subject = started
    module = subject.network.shrink({})
    member = Member(module, {}, {}, [], [])
    monkeypatch.setattr(module, "forward", lambda x: (torch.ones(len(x), 5),))
    found = describe_open_sizes(run, subject, GOAL, member)
    assert "gives other outputs at [1, 3, 24, 24]" in found["reason"]
    assert not (run.folder / "2x" / "model.dynamic.onnx").exists()


def test_what_differs_between_the_sizes_that_are_known_is_not_published_either(
    started: tuple[Run, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, subject = started
    module = subject.network.shrink({})
    own = module.forward
    monkeypatch.setattr(module, "forward", lambda x: tuple(y + (len(x) == 8) for y in own(x)))
    found = describe_open_sizes(run, subject, GOAL, Member(module, {}, {}, [], []))
    assert "gives other outputs at [8, 3, 24, 24]" in found["reason"]


def test_what_this_machine_lacks_is_tried_again(
    started: tuple[Run, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, subject = started
    file = run.folder / "2x" / "model.dynamic.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"of an earlier plan")
    member = Member(subject.network.shrink({}), {}, {}, [], [])

    def failing(error: Exception) -> Any:
        return lambda *arguments: (_ for _ in ()).throw(error)

    with monkeypatch.context() as patch:
        lacking = UnavailableError("openvino is not installed: pip install it")
        patch.setattr(type(run.runtime), "convert", failing(lacking))
        assert "pip install" in describe_open_sizes(run, subject, GOAL, member)["reason"]
    assert not file.exists()
    with monkeypatch.context() as patch:
        full = WorkspaceError("the disk is full")
        patch.setattr(type(run.runtime), "convert", failing(full))
        with pytest.raises(WorkspaceError, match="disk is full"):
            describe_open_sizes(run, subject, GOAL, member)
    assert describe_open_sizes(run, subject, GOAL, member)["onnx"] == "2x/model.dynamic.onnx"
    assert file.exists()


TAGGER = """
import torch
from torch import nn

class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.cell = nn.Embedding(30, 8), nn.LSTM(8, 8, batch_first=True)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.down(self.up(self.cell(self.words(x))[0]).relu())

class Task:
    quality_name = "none"

    def model(self):
        torch.manual_seed(0)
        return Tagger().eval()

    def example_inputs(self):
        return (torch.arange(14)[None],)

    def batches(self):
        for index in range(16):
            yield (torch.randint(0, 30, (4, 7)),)

    def quality(self, predict):
        return 1.0
"""


def test_a_length_that_torch_fixes_is_the_deployed_one(tmp_path: Path, opened: Any) -> None:
    (tmp_path / "task.py").write_text(TAGGER)
    recipe = (HERE / "small_recipe.yaml").read_text(encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(recipe.replace("open_sizes: false", "open_sizes: true"))
    with opened(tmp_path / "task.py", tmp_path / "recipe.yaml", tmp_path / "run") as run:
        subject = make_subject(run)
        member = Member(subject.network.shrink({}), {}, {}, [], [])
        found = describe_open_sizes(run, subject, GOAL, member)
        assert found == {"onnx": "2x/model.dynamic.onnx", "axes": [["batch"]]}
        session = onnxruntime.InferenceSession(str(run.folder / found["onnx"]))
        assert session.get_inputs()[0].shape == ["batch", 14]

"""A member as the task's own module: files where it can be, a reason and no files where not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import edgeprune
from edgeprune.request import Goal
from edgeprune.stages.member import Member
from edgeprune.stages.own_module import describe_own_module
from edgeprune.stages.run import Run, Subject
from edgeprune.stages.subject import make_subject

GOAL = Goal("speedup", 2.0)


@pytest.fixture
def started(tmp_path: Path, opened: Any) -> Iterator[tuple[Run, Subject]]:
    """A run of a task whose forward has the width of the stream in its code, and nothing else."""
    here = Path(__file__).parent
    text = (here / "small_task.py").read_text(encoding="utf-8")
    counted = text.replace(".mean((2, 3)))", ".mean((2, 3)).view(-1, WIDTH))")
    assert counted != text
    (tmp_path / "task.py").write_text(counted, encoding="utf-8")
    with opened(tmp_path / "task.py", here / "small_recipe.yaml", tmp_path / "run") as run:
        yield run, make_subject(run)


def test_files_lie_beside_the_artifact_only_where_they_hold(started: tuple[Run, Subject]) -> None:
    run, subject = started
    structures = subject.network.structures
    (width,) = [n for n, s in structures.items() if s.kind == "width"]
    inner = next(n for n, s in structures.items() if s.kind == "channels")

    def describe(keep: dict[str, list[int]]) -> dict[str, object]:
        member = Member(subject.network.shrink(keep), keep, {}, [], [])
        return describe_own_module(run, subject, GOAL, member)

    folder = run.folder / "2x"
    assert describe({inner: [0, 3]}) == {"sizes": "2x/sizes.json", "notes": []}
    model = edgeprune.load_shrunk(run.task.model(), folder)
    assert model.blocks[0].conv1.out_channels == 2

    refused = describe({width: list(range(8))})
    assert "fails in the model (Net)" in str(refused["reason"])
    assert "task.py" in str(refused["reason"])
    assert not list(folder.iterdir())

    assert describe({inner: []})["notes"] == [
        f"{inner}: taken out whole; one unit of zeros stands for it"
    ]
    again = edgeprune.load_shrunk(run.task.model(), folder)
    graph = subject.network.shrink({inner: []})
    (image,) = run.task.example_inputs()
    with torch.no_grad():
        torch.testing.assert_close(again(image), graph(image)[0])

"""One finished run that the tests of this folder look at, and how to start others."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from edgeprune.pipeline import open_run
from edgeprune.request import CompressRequest, Goal
from edgeprune.stages.run import Run

HERE = Path(__file__).parent
GOAL = Goal("speedup", 2.0)
Start = Callable[..., subprocess.CompletedProcess[str]]


def command(out: Path, *options: str) -> list[str]:
    """A compression of the small task to 1.3x."""
    task, recipe = HERE / "small_task.py", HERE / "small_recipe.yaml"
    return [
        *(sys.executable, "-m", "edgeprune", "compress", "--task", str(task), "--device", "x86"),
        *("--recipe", str(recipe), "--out", str(out)),
        *(options or ("--target-speedup", "1.3x", "--recovery", "0.2")),
    ]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """A cache of its own, so that the user's tables are neither used nor changed."""
    cache = tmp_path_factory.mktemp("cache")
    return {**os.environ, "XDG_CACHE_HOME": str(cache), "NO_COLOR": "1"}


@pytest.fixture(scope="session")
def start(environment: Mapping[str, str]) -> Start:
    """Run the command line and wait for its end."""

    def run(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(out, *options), env=environment, capture_output=True, text=True, timeout=900
        )

    return run


@pytest.fixture(scope="session")
def finished(
    start: Start, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run folder after a whole run, and what the command printed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    done = start(out)
    assert done.returncode in (0, 3), done.stderr
    return out, done


@pytest.fixture
def opened(
    environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path, Path, Path], AbstractContextManager[Run]]:
    """Open a run to 2x of a task with a recipe in a folder, to call single stages of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", environment["XDG_CACHE_HOME"])

    def begin(task: Path, recipe: Path, out: Path) -> AbstractContextManager[Run]:
        request = CompressRequest(
            task=str(task),
            device="x86",
            goals=(GOAL,),
            recipe=str(recipe),
            recovery_minutes=None,
            out=out,
            dry_run=False,
            settings={},
        )
        return open_run(request)

    return begin


def measurements_only(source: Path, folder: Path) -> None:
    """A run folder that holds the figures measured in another, and nothing made from them."""
    folder.mkdir()
    shutil.copy(source / "run.json", folder)
    for stage in (source / "stages").iterdir():
        copy = folder / "stages" / stage.name
        if stage.name.startswith(("latency-", "confirm-")):
            shutil.copytree(stage, copy)
        elif stage.name.startswith("loop-"):
            copy.mkdir(parents=True)
            for name in ("trials.jsonl", "losses.pace.json"):
                if (stage / name).exists():
                    shutil.copy(stage / name, copy)

"""A built wheel, installed into an empty place and run from another folder, finds what it ships."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
SHIPPED = ("targets", "recipes", "profiles")


def packages() -> set[str]:
    parser = ConfigParser()
    parser.read(REPO / "setup.cfg")
    return set(parser["options"]["packages"].split())


def test_setup_cfg_lists_every_package() -> None:
    folders = {path.parent.relative_to(REPO) for path in (REPO / "edgeprune").rglob("*.py")}
    found = {".".join(folder.parts) for folder in folders}
    assert packages() == found | {f"edgeprune.data.{kind}" for kind in SHIPPED}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing is left in the checkout."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("needs setuptools")
    source = tmp_path_factory.mktemp("source")
    return built_wheel(source, tmp_path_factory.mktemp("wheel"))


def built_wheel(source: Path, out: Path, **environment: str) -> Path:
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, source)
    compiled = shutil.ignore_patterns("__pycache__", "*.so", "*.a")
    for name in ("edgeprune", *SHIPPED):
        shutil.copytree(REPO / name, source / name, ignore=compiled)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [*command, "--no-build-isolation", "-w", str(out), str(source)],
        check=True,
        env={**os.environ, "CXXFLAGS": "-O0", **environment},  # quicker; nothing here is timed
    )
    return next(out.glob("edgeprune-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel's contents and nothing else of edgeprune."""
    return installed_wheel(wheel, tmp_path_factory.mktemp("installed"))


def installed_wheel(wheel: Path, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(folder), str(wheel)], check=True)
    return folder


def from_wheel(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the installed wheel in front of everything else."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(folder)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_wheel_holds_every_source_and_data_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {path.relative_to(REPO).as_posix() for path in (REPO / "edgeprune").rglob("*.py")}
    data = {
        f"edgeprune/data/{kind}/{path.name}"
        for kind, pattern in zip(SHIPPED, ("*.yaml", "*.yaml", "*.jsonl"), strict=True)
        for path in (REPO / kind).glob(pattern)
    }
    assert "edgeprune/data/targets/x86.yaml" in data
    native = {
        path.relative_to(REPO).as_posix()
        for path in (REPO / "edgeprune" / "kernels" / "native").iterdir()
    }
    assert len(native) > 10
    assert sources | data | native | {"edgeprune/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests", "tools"))]


def test_it_runs_from_another_folder_and_finds_its_data(installed: Path, tmp_path: Path) -> None:
    code = "import edgeprune, edgeprune.locate as l; print(edgeprune.__file__, l.version())"
    where = from_wheel(installed, tmp_path, "-c", code).stdout.split()
    assert where[0].startswith(str(installed)) and where[1] == "0.1.0"
    helped = from_wheel(installed, tmp_path, "-m", "edgeprune.cli.app", "--help")
    assert helped.returncode == 0 and "compress" in helped.stdout
    doctor = from_wheel(installed, tmp_path, "-m", "edgeprune.cli.app", "doctor", "--json")
    checks = {check["name"]: check for check in json.loads(doctor.stdout)}
    assert doctor.returncode == 0 and checks["target x86"]["state"] == "ok"
    code = (
        "from edgeprune.recipe import load_recipe; from edgeprune.task_source import *; "
        "print(load_recipe('default').criterion, *built_in_tasks())"
    )
    assert "second_order digits" in from_wheel(installed, tmp_path, "-c", code).stdout


def test_the_wheel_brings_kernels_and_the_operator(installed: Path, tmp_path: Path) -> None:
    code = (
        "import numpy, edgeprune; from edgeprune.kernels import pack; "
        "print(pack(numpy.eye(4, dtype='f')).multiply(numpy.ones((1, 4), 'f')).tolist()); "
        "import openvino; openvino.Core().add_extension(str(edgeprune.openvino_extension())); "
        "print(edgeprune.openvino_extension())"
    )
    done = from_wheel(installed, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    product, operator = done.stdout.splitlines()
    assert product == "[[1.0, 1.0, 1.0, 1.0]]" and operator.startswith(str(installed))


def test_for_another_openvino_the_operator_is_compiled_once(
    installed: Path, tmp_path: Path
) -> None:
    """As if OpenVINO had been installed after edgeprune."""
    folder = tmp_path / "installed"
    shutil.copytree(installed, folder)
    for path in (folder / "edgeprune" / "kernels").glob("libedgeprune_openvino_*.so"):
        path.unlink()
    code = (
        "import edgeprune, openvino; path = edgeprune.openvino_extension(); "
        "openvino.Core().add_extension(str(path)); print(path)"
    )
    first = from_wheel(folder, tmp_path, "-c", code)
    assert "compiling the sparse operator" in first.stderr
    assert first.stdout.startswith(str(tmp_path / "edgeprune" / "kernels"))
    again = from_wheel(folder, tmp_path, "-c", code)
    assert (again.stdout, again.stderr) == (first.stdout, "")


def test_without_a_compiler_it_installs_and_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    wheel = built_wheel(tmp_path / "source", tmp_path / "out", CXX="no-such-compiler")
    folder = installed_wheel(wheel, tmp_path / "installed")
    doctor = from_wheel(folder, tmp_path, "-m", "edgeprune.cli.app", "doctor", "--json")
    checks = {check["name"]: check for check in json.loads(doctor.stdout)}
    assert checks["sparse kernels"]["state"] == "missing"
    assert "C++ compiler" in checks["sparse kernels"]["fix"]
    code = "from edgeprune.kernels import instruction_sets; instruction_sets()"
    refused = from_wheel(folder, tmp_path, "-c", code)
    assert "the sparse kernels were not built" in refused.stderr


def test_the_program_is_installed(installed: Path, tmp_path: Path) -> None:
    shown = from_wheel(installed, tmp_path, str(installed / "bin" / "edgeprune"), "--version")
    assert shown.stdout == "edgeprune 0.1.0\n"


@pytest.mark.slow
def test_alone_in_an_empty_environment_it_measures_a_model(wheel: Path, tmp_path: Path) -> None:
    """Installed by the README's commands, with nothing of this checkout but a task of one's own."""
    place = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "torch==2.13.0"], check=True)
    subprocess.run([*pip, f"{wheel}[openvino]"], check=True)
    shutil.copy(REPO / "tests" / "pipeline" / "small_task.py", tmp_path / "mine.py")
    command = [str(place / "bin" / "edgeprune"), "compress", "--task", "mine.py", "--device", "x86"]
    done = subprocess.run(
        [*command, "--target-speedup", "1.3x", "--recipe", "quick", "--dry-run", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": "", "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0 < found["fastest_ms"] < found["dense_ms"]

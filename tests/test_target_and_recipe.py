"""Shipped targets and recipes, and files of the user's own."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from edgeprune.errors import InputError
from edgeprune.locate import shipped_names
from edgeprune.recipe import Recipe, load_recipe
from edgeprune.schema import read_yaml
from edgeprune.target import load_target

REPO = Path(__file__).parents[1]


def test_every_shipped_target_and_recipe_loads() -> None:
    assert "x86" in shipped_names("targets")
    for name in shipped_names("targets"):
        assert load_target(name).name == name
    for name in shipped_names("recipes"):
        assert load_recipe(name).name == name


def test_x86_is_one_thread_of_openvino_at_its_default_precision() -> None:
    target = load_target("x86")
    assert (target.transport, target.runtime) == ("local", "openvino")
    assert (target.threads, target.precision, target.channel_multiple) == (1, "default", 8)


def test_the_default_recipe_says_every_default() -> None:
    recipe = load_recipe("default")
    assert recipe == replace(Recipe("default"), description=recipe.description)
    written = read_yaml(REPO / "recipes" / "default.yaml")
    assert _keys(written) == _keys(asdict(recipe)) - {"name"}


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("version: 1\ntransport: local\nruntime: openvino\nthreads: 2\n")
    target = load_target(path)
    assert (target.name, target.threads, target.path) == ("mine", 2, path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("transport: local\nruntime: openvino\n", "version"),
        ("version: 2\ntransport: local\nruntime: openvino\n", "version"),
        ("version: 1\ntransport: local\nruntime: openvino\nthread: 1\n", "did you mean 'threads'"),
        ("version: 1\ntransport: local\nruntime: openvino\nthreads: 0\n", "at least 1"),
        ("version: 1\ntransport: local\nruntime: openvino\nprecision: int3\n", "precision"),
        ("version: 1\ntransport: local\nruntime: openvino\nname: other\n", "unknown key 'name'"),
        ("", "must hold keys"),
    ],
)
def test_wrong_targets_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        load_target(path)


def test_names_that_do_not_exist() -> None:
    with pytest.raises(InputError, match="did you mean 'x86'"):
        load_target("x68")
    with pytest.raises(InputError, match="did you mean 'default'"):
        load_recipe("defualt")
    with pytest.raises(InputError, match="does not exist"):
        load_target("nowhere/t.yaml")


def _keys(value: object, prefix: str = "") -> set[str]:
    """The leaves of nested mappings, as dotted names."""
    if not isinstance(value, dict):
        return {prefix}
    dot = "." if prefix else ""
    return {key for name, item in value.items() for key in _keys(item, f"{prefix}{dot}{name}")}

"""Strict settings: what is not known, missing, of another kind or out of bounds is refused."""

import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import InputError
from edgeprune.schema import Checked, Range, from_mapping, read_yaml


@dataclass(frozen=True)
class Inner(Checked):
    share: Annotated[float, Range(0, 1)] = 0.5


@dataclass(frozen=True)
class Outer(Checked):
    name: str
    count: Annotated[int, Range(1)] = 3
    kind: Literal["a", "b"] = "a"
    limit: float | None = None
    rates: tuple[Annotated[float, Range(above=0)], ...] = (1.0,)
    labels: Mapping[str, int] = field(default_factory=dict)
    on: bool = True
    inner: Inner = field(default_factory=Inner)


def read(**values: object) -> Outer:
    return from_mapping(Outer, {"name": "n", **values}, "file.yaml")


def test_values_arrive_and_the_rest_keeps_its_defaults() -> None:
    outer = read(count=5, limit=2, rates=[1, 2.5], inner={"share": 1}, labels={"x": 1})
    assert outer == Outer("n", 5, "a", 2.0, (1.0, 2.5), {"x": 1}, True, Inner(1.0))
    assert isinstance(outer.limit, float)


def test_a_number_with_exponent_but_no_point_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: n\nlimit: 4e-4\n")
    assert from_mapping(Outer, read_yaml(path), str(path)).limit == 4e-4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cuont": 1}, ["cuont", "did you mean 'count'"]),
        ({"inner": {"shear": 1}}, ["inner.shear", "did you mean 'share'"]),
        ({"count": 0}, ["'count' is 0", "at least 1"]),
        ({"count": 1.5}, ["'count'", "whole number", "1.5"]),
        ({"count": True}, ["'count'", "whole number"]),
        ({"count": None}, ["'count'", "empty"]),
        ({"kind": "c"}, ["'kind' is 'c'", "a, b"]),
        ({"limit": "fast"}, ["'limit'", "a number", "fast"]),
        ({"limit": float("nan")}, ["'limit'", "a number", "nan"]),
        ({"rates": 1}, ["'rates'", "list"]),
        ({"rates": [0]}, ["'rates' is 0", "above 0"]),
        ({"inner": 3}, ["'inner'", "share"]),
        ({"inner": {"share": 2}}, ["at most 1"]),
        ({"labels": {"x": "y"}}, ["labels.x"]),
        ({"on": "perhaps"}, ["true or false"]),
    ],
)
def test_wrong_values_are_named(values: dict[str, object], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read(**values)
    message = str(caught.value)
    assert message.startswith("file.yaml: ") and "\n" not in message
    assert all(word in message for word in words), message


def test_missing_keys_and_files_that_hold_no_keys() -> None:
    with pytest.raises(InputError, match="missing key 'name'"):
        from_mapping(Outer, {}, "f")
    for data in (None, [1], "text", 3):
        with pytest.raises(InputError, match="must hold keys"):
            from_mapping(Outer, data, "f")


def test_construction_in_python_is_checked_too() -> None:
    with pytest.raises(InputError, match="at most 1"):
        Inner(share=7)


@given(st.text(string.ascii_lowercase, min_size=1, max_size=12))
def test_no_unknown_key_ever_passes(key: str) -> None:
    known = {"name", "count", "kind", "limit", "rates", "labels", "on", "inner"}
    if key not in known:
        with pytest.raises(InputError, match=f"unknown key '{key}'"):
            read(**{key: 1})


@given(st.integers(1, 10**6), st.floats(0, 1), st.lists(st.floats(0.1, 9), max_size=4))
def test_what_is_written_reads_back(count: int, share: float, rates: list[float]) -> None:
    outer = Outer("n", count, rates=tuple(rates), inner=Inner(share))
    assert from_mapping(Outer, asdict(outer), "f") == outer


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"a: [1", "line"), (b"\xff\xfe\x00a", "UTF-8"), (b"a: !!python/object:os.system 1", "YAML")],
)
def test_broken_yaml_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)

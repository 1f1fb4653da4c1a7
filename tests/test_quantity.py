"""Durations and speed-ups as people type them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import InputError
from edgeprune.quantity import parse_latency_ms, parse_minutes, parse_speedup


@pytest.mark.parametrize(
    ("text", "ms"),
    [("10ms", 10), ("0.5s", 500), ("800us", 0.8), ("1e3 us", 1), (" 2 ms ", 2), (".5ms", 0.5)],
)
def test_latencies(text: str, ms: float) -> None:
    assert parse_latency_ms(text) == pytest.approx(ms)


@given(st.floats(1e-3, 1e6), st.sampled_from(["us", "ms", "s"]))
def test_any_positive_latency_is_read_in_its_unit(value: float, unit: str) -> None:
    factor = {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]
    assert parse_latency_ms(f"{value!r}{unit}") == pytest.approx(value * factor)


@pytest.mark.parametrize(
    "text", ["", "ms", "10", "0ms", "-1ms", "10 m", "1ms2", "nan ms", "inf ms", "1e999ms", "10MB"]
)
def test_wrong_latencies_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="10ms"):
        parse_latency_ms(text)


@given(st.floats(1.001, 100))
def test_speedups_with_and_without_unit(value: float) -> None:
    assert parse_speedup(f"{value!r}x") == parse_speedup(repr(value)) == value


@pytest.mark.parametrize("text", ["", "x", "0x", "1x", "0.5x", "-2x", "1000x", "2y", "twice"])
def test_wrong_speedups_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="speed-up"):
        parse_speedup(text)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("none", None), ("None", None), ("0", None), ("25", 25), ("90s", 1.5), ("5min", 5)],
)
def test_recovery(text: str, minutes: float | None) -> None:
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "-1", "5h", "soon", "1e999"])
def test_wrong_recovery_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="recovery"):
        parse_minutes(text)

"""Results go to stdout and the rest to stderr; a terminal gets bars, a pipe gets lines."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune import console

NESTED = """
import time
from edgeprune.console import message, progress
with progress("outer", 2) as outer:
    for part in range(2):
        with progress("inner", 3) as inner:
            inner.advance(note="first")
            time.sleep(0.3)  # bars are drawn ten times a second
            message(f"message {part} [red]")
        outer.advance()
"""


def test_a_pipe_gets_a_line_at_the_start_and_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("profiling", 10) as bar:
        for _ in range(10):
            bar.advance()
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["profiling ...", "profiling: done in 0 s"]
    assert captured.out == ""


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock that stages are timed by; it stands still until it is set."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_a_pipe_gets_a_line_a_minute_with_the_time_left(
    capsys: pytest.CaptureFixture[str], now: list[float]
) -> None:
    with console.progress("training", 100) as bar:
        for _ in range(100):
            now[0] += 2.0
            bar.advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "training: 30%, about 2 min 20 s left"
    assert lines[-1] == "training: done in 3 min 20 s" and len(lines) == 5


def test_what_hardly_began_is_given_no_time_left(
    capsys: pytest.CaptureFixture[str], now: list[float]
) -> None:
    with console.progress("training", 1200.0) as bar:
        now[0] = 90.0
        bar.update(1e-5)
    assert capsys.readouterr().err.splitlines()[1] == "training: running for 1 min 30 s"


def test_a_pipe_gets_the_note_of_the_start_at_once_and_only_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with console.progress("recovering", 10) as bar:
        bar.update(0, note="at rate 0.1")
        bar.update(0, note="asking, 3%")
        bar.advance(note="step 1")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["recovering ...", "recovering at rate 0.1 ...", "recovering: done in 0 s"]


def test_a_stage_that_fails_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="x"), console.progress("stage"):
        raise ValueError("x")
    assert "done" not in capsys.readouterr().err


def in_terminal(code: str, **variables: str) -> str:
    """What a program writes to a terminal on stderr."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", **variables}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    with subprocess.Popen([sys.executable, "-c", code], stderr=follower, env=environment):
        os.close(follower)
        chunks = []
        try:
            while chunk := os.read(leader, 65536):
                chunks.append(chunk)
        except OSError:  # Linux says so when the other end is gone
            pass
        os.close(leader)
    return b"".join(chunks).decode()


def test_a_terminal_gets_nested_bars_and_messages_on_lines_of_their_own() -> None:
    shown = in_terminal(NESTED)
    assert "\x1b[" in shown and "outer" in shown and "inner first" in shown
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "\n").splitlines()
    assert "message 0 [red]" in plain and "message 1 [red]" in plain


def test_no_color_is_honoured() -> None:
    assert re.search(r"\x1b\[\d+m", in_terminal(NESTED))
    assert not re.search(r"\x1b\[[39]\dm", in_terminal(NESTED, NO_COLOR="1"))


def test_details_need_asking(capsys: pytest.CaptureFixture[str]) -> None:
    console.detail("hidden")
    console.configure(verbose=True)
    console.detail("shown")
    console.configure(verbose=False)
    assert capsys.readouterr().err == "shown\n"


def test_json_is_valid_whatever_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": (1, "é")})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": None, "b": [None, 1.5], "c": [1, "é"]}
    assert captured.err == ""


def test_tables_align_numbers_and_cut_nothing_short(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "x" * 150, "ms": "1.5", "met": True}, {"name": "[b]y", "ms": "10.25"}]
    console.show_table(("name", "ms", "met"), rows)
    head, first, second = capsys.readouterr().out.splitlines()
    assert first == f"{'x' * 150}    1.5  yes" and second.rstrip().endswith("10.25")
    assert second.startswith("[b]y ") and head.split() == ["name", "ms", "met"]


@given(st.floats(0, 1e6))
def test_durations_read_back_to_the_second(seconds: float) -> None:
    units = {"s": 1, "min": 60, "h": 3600}
    parts = console.duration(seconds).split()
    total = sum(int(n) * units[u] for n, u in zip(parts[::2], parts[1::2], strict=True))
    assert abs(total - seconds) <= (0.5 if seconds < 3599 else 60)

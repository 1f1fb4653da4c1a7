"""Tables survive what happens to files: torn ends, damage, many writers, writers that die."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from edgeprune.errors import TableError
from edgeprune.latency.fingerprint import Fingerprint
from edgeprune.latency.store import open_table
from edgeprune.latency.table import Table

HERE = Fingerprint({"machine": {"cpu": "this"}, "threads": 1})
ELSEWHERE = Fingerprint({"machine": {"cpu": "other"}, "threads": 1})


def _filled(path: Path, count: int = 20) -> Table:
    table = Table(path, HERE)
    for i in range(count):
        table.append("whole", f"s{i}", {"samples_ms": [i, i + 0.5]})
    return table


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    _filled(tmp_path / "t.jsonl")
    read = Table(tmp_path / "t.jsonl", HERE)
    assert read.problems == []
    assert read.signatures("whole") == [f"s{i}" for i in range(20)]
    assert read.latest("whole", "s3")["samples_ms"] == [3, 3.5]
    assert read.latest("layers", "s3") is None
    header = json.loads((tmp_path / "t.jsonl").read_bytes().splitlines()[0])
    assert header["facts"] == HERE.facts


def test_repetitions_are_kept_in_order(tmp_path: Path) -> None:
    table = _filled(tmp_path / "t.jsonl", 2)
    table.append("whole", "s0", {"samples_ms": [9]})
    read = Table(tmp_path / "t.jsonl", HERE)
    assert [record["samples_ms"] for record in read.all("whole", "s0")] == [[0, 0.5], [9]]
    assert read.latest("whole", "s0")["samples_ms"] == [9]


def test_cut_at_any_byte_loses_at_most_the_last_record(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    _filled(path)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends)
        table = Table(path, HERE)
        assert len(table) == max(0, complete - 1)
        assert bool(table.problems) == (cut not in (0, *ends))


def test_appending_after_a_torn_line_keeps_both_sides(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    _filled(path, 5)
    whole = path.read_bytes()
    for cut in range(len(whole) - 1, len(whole) - 120, -7):
        path.write_bytes(whole[:cut])
        Table(path, HERE).append("whole", "new", {"samples_ms": [1]})
        table = Table(path, HERE)
        assert table.latest("whole", "new") is not None
        assert table.latest("whole", "s3") is not None or cut < len(whole) - 130


def test_a_flipped_byte_anywhere_never_changes_a_figure(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    table = _filled(path, 6)
    truth = {name: table.latest("whole", name)["samples_ms"] for name in table.signatures("whole")}
    whole = path.read_bytes()
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 0x15
        path.write_bytes(bytes(damaged))
        read = Table(path, HERE)
        for name in read.signatures("whole"):
            assert read.latest("whole", name)["samples_ms"] == truth[name]
        assert len(read) >= 4


def test_damage_in_the_middle_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    _filled(path, 5)
    lines = path.read_bytes().split(b"\n")
    lines[2] = b'{"kind": "whole", "signature": "s1"}'
    path.write_bytes(b"\n".join(lines))
    table = Table(path, HERE)
    assert table.latest("whole", "s1") is None
    assert len(table) == 4
    assert table.problems == [f"{path}:3: damaged record left out"]


def test_damage_is_told_in_one_line_where_the_table_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = open_table(HERE).path
    _filled(path, 5)
    assert len(open_table(HERE)) == 5
    assert capsys.readouterr().err == ""
    lines = path.read_bytes().split(b"\n")
    lines[2], lines[4] = b"{}", lines[4][1:]
    path.write_bytes(b"\n".join(lines))
    assert len(open_table(HERE)) == 3
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"{path}:3: damaged record left out, and 1 more" in told


def test_figures_of_another_fingerprint_are_not_seen(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    _filled(path, 3)
    other = Table(path, ELSEWHERE)
    assert len(other) == 0
    other.append("whole", "s0", {"samples_ms": [77]})
    assert Table(path, HERE).latest("whole", "s0")["samples_ms"] == [0, 0.5]
    assert Table(path, ELSEWHERE).latest("whole", "s0")["samples_ms"] == [77]


def test_shipped_tables_are_read_and_never_written(tmp_path: Path) -> None:
    shipped = tmp_path / "shipped.jsonl"
    _filled(shipped, 3)
    before = shipped.read_bytes()
    table = Table(tmp_path / "own.jsonl", HERE, [shipped])
    assert table.latest("whole", "s2") is not None
    table.append("whole", "s9", {"samples_ms": [1]})
    assert shipped.read_bytes() == before
    assert len(Table(tmp_path / "own.jsonl", HERE)) == 1


def test_a_table_of_a_later_format_is_refused(tmp_path: Path) -> None:
    import edgeprune.latency.table as module

    path = tmp_path / "t.jsonl"
    original = module.FORMAT
    try:
        module.FORMAT = 99
        _filled(path, 1)
    finally:
        module.FORMAT = original
    with pytest.raises(TableError, match="format 99"):
        Table(path, HERE)


def test_unwritable_folder_is_a_table_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TableError, match=r"cannot (read|write)"):
        _filled(tmp_path / "file" / "t.jsonl", 1)


def _append_many(path: Path, writer: int, count: int) -> None:
    table = Table(path, HERE)
    for i in range(count):
        table.append("whole", f"w{writer}-{i}", {"samples_ms": [float(writer)] * 40})


def test_many_writers_and_some_killed_leave_no_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(path, w, 60)) for w in range(12)]
    victims = [context.Process(target=_append_many, args=(path, w, 10**6)) for w in range(12, 16)]
    for process in (*writers, *victims):
        process.start()
    time.sleep(0.3)
    for process in victims:
        os.kill(process.pid, signal.SIGKILL)
    for process in (*writers, *victims):
        process.join()
    table = Table(path, HERE)
    assert table.problems == []
    for writer in range(12):
        for i in range(60):
            record = table.latest("whole", f"w{writer}-{i}")
            assert record is not None and record["samples_ms"] == [float(writer)] * 40
    # A writer that saw another's line half written puts an empty line before its own.
    assert all(json.loads(line) for line in path.read_bytes().splitlines() if line)

"""Profiling a network in place: a usable model, nothing measured twice, nothing lost to a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import small_network

import edgeprune.latency.profiler as profiler
from edgeprune.devices import device
from edgeprune.errors import InputError
from edgeprune.latency.fingerprint import take
from edgeprune.latency.model import LatencyModel
from edgeprune.latency.prediction_check import check_prediction, random_plans, summarise
from edgeprune.latency.table import Table
from edgeprune.latency.variants import REPETITIONS, ROUNDS
from edgeprune.target import load_target


@pytest.fixture(scope="module")
def profiled(tmp_path_factory) -> tuple[Path, LatencyModel, Table]:
    folder = tmp_path_factory.mktemp("profile")
    model, table = small_network.profile(folder)
    return folder, model, table


def test_model_knows_all_levels_and_less_takes_less(profiled) -> None:
    _, model, _ = profiled
    network = small_network.small_network()
    assert model.full == {name: s.units for name, s in network.structures.items()}
    assert set(model.unary_ms) == set(network.structures)
    inner = [name for name, s in network.structures.items() if s.removable]
    assert len(inner) == 3
    assert 0 < model.fastest_ms < model.dense_ms
    assert model.total_ms(dict.fromkeys(inner, 0)) < 0.7 * model.dense_ms
    assert model.total_ms({inner[0]: 0}) < model.dense_ms
    assert LatencyModel.from_json(model.to_json()) == model


def test_blocks_alike_share_their_figures(profiled) -> None:
    _, model, _ = profiled
    pairs = list(model.pair_ms.values())
    assert len(pairs) == 3
    assert pairs[0] == pairs[1] == pairs[2]


def test_every_variant_has_its_full_number_of_records(profiled) -> None:
    _, _, table = profiled
    names = table.signatures("layers")
    assert 6 <= len(names) <= small_network.VARIANTS
    assert {len(table.all("layers", name)) for name in names} == {REPETITIONS}
    assert {len(table.all("whole", name)) for name in names} == {ROUNDS}
    assert table.problems == []


def test_profiling_again_measures_nothing_and_is_quick(profiled) -> None:
    folder, model, _ = profiled
    before = (folder / "table.jsonl").read_bytes()
    network = small_network.small_network()
    begin = time.monotonic()
    again, _ = small_network.profile(folder, network)
    assert time.monotonic() - begin < 10
    assert again == model
    assert (folder / "table.jsonl").read_bytes() == before
    assert not (folder / "work" / "variants").exists()


def test_predictions_hold_for_plans_that_were_never_measured(profiled, tmp_path: Path) -> None:
    folder, model, table = profiled
    network = small_network.small_network()
    plans = random_plans(small_network.offered(network), 8, seed=5)
    rows = check_prediction(
        network,
        load_target("x86"),
        device("local"),
        model,
        plans,
        Table(tmp_path / "check.jsonl", table.fingerprint),
        tmp_path,
    )
    assert len(rows) == len({json.dumps(sorted(plan.items())) for plan in plans})
    # Loose, since tests run on machines that do other things: an untrained guess is off by 50%.
    assert summarise(rows)["median_ratio_error_percent"] < 15
    assert len(Table(folder / "table.jsonl", table.fingerprint)) == len(table)


def _start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, small_network.__file__, str(folder)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _records(folder: Path) -> Counter[str]:
    table = Table(folder / "table.jsonl", take(device("local"), load_target("x86")))
    assert table.problems in ([], [f"{table.path}: the last record is torn and was left out"])
    kinds: Counter[str] = Counter()
    for kind in ("layers", "whole"):
        kinds[kind] = sum(len(table.all(kind, name)) for name in table.signatures(kind))
    return kinds


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_profile_goes_on_where_it_was(tmp_path: Path, sign: int) -> None:
    wanted = {signal.SIGKILL: 5, signal.SIGINT: 12}[sign]
    process = _start(tmp_path)
    table = tmp_path / "table.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if table.exists() and table.read_bytes().count(b"\n") > wanted:
            break
        time.sleep(0.02)
    assert process.poll() is None
    os.kill(process.pid, sign)
    process.wait()
    kept = _records(tmp_path)
    assert kept["layers"] >= wanted - 3
    before = table.read_bytes()
    small_network.profile(tmp_path)
    # What was there is still there, byte for byte, and nothing of it was measured again.
    assert table.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    again = Table(table, take(device("local"), load_target("x86")))
    names = again.signatures("layers")
    assert {len(again.all("layers", name)) for name in names} == {REPETITIONS}
    assert {len(again.all("whole", name)) for name in names} == {ROUNDS}


def test_levels_that_cannot_be_are_refused(tmp_path: Path) -> None:
    network = small_network.small_network()
    target, place = load_target("x86"), device("local")
    table = Table(tmp_path / "t.jsonl", take(place, target))
    name = next(n for n, s in network.structures.items() if not s.removable)
    full = network.structures[name].units
    for levels, message in (
        ({"nothing": (1,)}, "no structure 'nothing'"),
        ({name: (0, full)}, "within 1 to"),
        ({name: (full, 8)}, "must ascend"),
        ({name: (8,)}, "must end with all"),
    ):
        with pytest.raises(InputError, match=message):
            profiler.profile_network(network, target, place, levels, table, tmp_path)

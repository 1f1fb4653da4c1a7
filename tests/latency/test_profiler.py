"""Profiling a network in place: a usable model, nothing measured twice, nothing lost to a kill."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_network

import edgeprune.latency.profiler as profiler
from edgeprune.devices import device
from edgeprune.errors import InputError
from edgeprune.graph.choices import Choices
from edgeprune.latency.fingerprint import take
from edgeprune.latency.model import LatencyModel
from edgeprune.latency.prediction_check import check_prediction, random_plans, summarise
from edgeprune.latency.table import Table
from edgeprune.latency.variants import REPETITIONS, ROUNDS, VariantRunner
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


def damage_variants(monkeypatch: pytest.MonkeyPatch, numbers: range) -> None:
    """Spoil what is written of some variants, so that OpenVINO cannot open them."""
    build, built = VariantRunner.build, []

    def damaged(runner: VariantRunner, name: str, levels: dict[str, int]) -> Path:
        artifact = build(runner, name, levels)
        if name not in built:
            built.append(name)
            if built.index(name) in numbers:
                artifact.write_text("<net>")
        return artifact

    monkeypatch.setattr(VariantRunner, "build", damaged)


def test_a_variant_that_cannot_be_opened_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damage_variants(monkeypatch, range(3, 4))
    model, table = small_network.profile(tmp_path)
    assert 0 < model.fastest_ms < model.dense_ms
    assert "1 of 8 variants are left out: OpenVINO cannot open" in capsys.readouterr().err
    (refused,) = table.signatures("refused")
    assert not table.all("whole", refused)
    before = table.path.read_bytes()
    assert small_network.profile(tmp_path)[0] == model
    assert table.path.read_bytes() == before


def test_many_variants_that_cannot_be_opened_are_no_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage_variants(monkeypatch, range(3, 8))
    with pytest.raises(InputError, match="5 of 8 variants cannot be opened; the first: OpenVINO"):
        small_network.profile(tmp_path)


def test_predictions_hold_for_plans_that_were_never_measured(profiled, tmp_path: Path) -> None:
    folder, model, table = profiled
    network = small_network.small_network()
    plans = random_plans(small_network.offered(network), 8, seed=5)
    rows = check_prediction(
        network,
        load_target("x86"),
        device("local"),
        model,
        small_network.offered(network),
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


def _counts(table: Table) -> dict[tuple[str, str], int]:
    """Measurements by kind and signature."""
    return {
        (kind, name): len(table.all(kind, name))
        for kind in ("layers", "whole")
        for name in table.signatures(kind)
    }


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_profile_killed_anywhere_goes_on_where_it_was(
    profiled, tmp_path: Path, sign: int
) -> None:
    _, _, unbroken = profiled
    seed = int(os.environ.get("EDGEPRUNE_SEED") or time.time_ns() % 2**32)
    profiles = sum(count for (kind, _), count in _counts(unbroken).items() if kind == "layers")
    draw = random.Random(seed)
    # While layers are profiled as often as while whole models are timed, which are most records.
    kill_at = draw.choice(
        [draw.randrange(1, profiles), draw.randrange(profiles, int(0.9 * len(unbroken)))]
    )
    print(f"EDGEPRUNE_SEED={seed}: killed at record {kill_at} of {len(unbroken)}")
    process = _start(tmp_path)
    path = tmp_path / "table.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") > kill_at:
            break
        time.sleep(0.02)
    assert process.poll() is None
    os.kill(process.pid, sign)
    process.wait()
    before = path.read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    assert whole.count(b"\n") > kill_at
    kept = _counts(Table(path, unbroken.fingerprint))
    assert sum(kept.values()) == whole.count(b"\n") - 1
    _, resumed = small_network.profile(tmp_path)
    # What was there is still there, byte for byte, and with what an unbroken run measures the
    # table is full: nothing was measured again.
    assert path.read_bytes().startswith(whole)
    assert _counts(resumed) == _counts(unbroken)


def _stop_when_designed(done: float, total: float, note: str) -> None:
    if note.startswith("building variant"):
        raise KeyboardInterrupt


def _design(path: Path, choices: Choices) -> dict:
    """The profiler's decision how many variants to measure, none of which is measured here."""
    target, place = load_target("x86"), device("local")
    table = Table(path, take(place, target))
    known = set(table.signatures("design"))
    with pytest.raises(KeyboardInterrupt):
        profiler.profile_network(
            small_network.small_network(),
            target,
            place,
            choices,
            table,
            path.parent / "work",
            _stop_when_designed,
        )
    (name,) = set(table.signatures("design")) - known or known
    return table.latest("design", name) or {}


def test_the_number_of_variants_comes_from_a_measured_cost(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    choices = small_network.offered(small_network.small_network())
    first = _design(path, choices)
    # Killed before that was written down, the dense model measured and its artifact there.
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b'"kind":"design"' not in line))
    again = _design(path, choices)
    assert again["cost_s"] > 0.2 * first["cost_s"]
    assert len(Table(path, take(device("local"), load_target("x86")))) == REPETITIONS + 1
    # Written down, it stays, and holds for other levels of the same network.
    assert _design(path, choices) == again
    fewer = Choices({name: offered[-2:] for name, offered in choices.levels.items()})
    other = _design(path, fewer)
    assert (other["variants"], other["cost_s"]) == (again["variants"], again["cost_s"])
    assert other["signature"] != again["signature"]


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
            profiler.profile_network(network, target, place, Choices(levels), table, tmp_path)

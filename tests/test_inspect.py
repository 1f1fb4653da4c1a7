"""``edgeprune inspect``: what a person and a program are told of what can be pruned."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from inspected_task import Task
from torch import nn

import edgeprune
from edgeprune.cli.app import run
from edgeprune.graph.network import Network
from edgeprune.stages.inspect import inspect_task

TASK = str(Path(__file__).with_name("inspected_task.py"))


@pytest.fixture(scope="module")
def network() -> Network:
    return inspect_task(TASK, {}).network


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return edgeprune.inspect(TASK)


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sizes(module: nn.Module) -> dict[str, int]:
    return {name: value.numel() for name, value in module.named_parameters()}


def test_the_command_prints_what_python_gets(
    record: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", "--task", TASK, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == record


def test_parameters_are_counted_exactly(record: dict[str, Any], network: Network) -> None:
    shapes = {name: value.shape for name, value in Task().model().named_parameters()}
    touched = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in shapes.items()}
    for row in record["structures"]:
        alone = {name: torch.zeros_like(mask) for name, mask in touched.items()}
        for slot in network.structures[row["name"]].slots:
            where = torch.from_numpy(slot.unit >= 0).nonzero().flatten()
            for masks in (alone, touched):
                if slot.tensor in masks:
                    masks[slot.tensor].index_fill_(slot.dim, where, True)
        assert row["parameters"] == sum(int(mask.sum()) for mask in alone.values())
        assert row["share"] == row["parameters"] / record["parameters"]["total"]
    parameters = record["parameters"]
    assert parameters["total"] == sum(sizes(Task().model()).values())
    assert parameters["prunable"] == sum(int(mask.sum()) for mask in touched.values())
    assert parameters["share_prunable"] == parameters["prunable"] / parameters["total"]


def test_a_structure_counts_what_pruning_takes_out(
    record: dict[str, Any], network: Network
) -> None:
    whole = sum(sizes(network.captured.module).values())
    for row in record["structures"]:
        left = sum(sizes(network.shrink({row["name"]: [0]})).values())
        assert (whole - left) * row["units"] == row["parameters"] * (row["units"] - 1)


def test_the_layers_of_every_dimension_are_listed(record: dict[str, Any]) -> None:
    modules = dict(Task().model().named_modules())
    for row in record["structures"]:
        listed = {
            role: set(row[key])
            for role, key in (
                ("output", "produced_by"),
                ("input", "consumed_by"),
                ("vector", "goes_along"),
            )
        }
        for slot in row["slots"]:
            assert slot["tensor"].rpartition(".")[0] in listed[slot["role"]]
        for name in set().union(*listed.values()):
            assert name in modules
        assert all(isinstance(modules[n], nn.Conv2d) for n in listed["output"])
        assert all(isinstance(modules[n], nn.Conv2d | nn.Linear) for n in listed["input"])


def test_all_of_a_dimension_is_frozen_or_in_a_structure(network: Network) -> None:
    found: dict[tuple[str, int], int] = {}
    for structure in network.structures.values():
        for slot in structure.slots:
            place = slot.tensor, slot.dim
            found[place] = found.get(place, 0) + int((slot.unit >= 0).sum())
    for entry in network.frozen:
        place = entry.tensor, entry.dim
        found[place] = found.get(place, 0) + entry.positions
    parameters = dict(network.captured.module.named_parameters())
    for name, value in parameters.items():
        if value.dim() > 1:
            for dim in (0, 1):
                assert found.get((name, dim), 1) == value.shape[dim], (name, dim)


def test_a_person_reads_structures_obstacles_and_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "--task", TASK]) == 0
    out = capsys.readouterr().out
    assert "blocks.0-2.conv2" in out and "blocks.7:channels" in out
    assert "the network's outputs keep their shape" in out
    assert "channels (9), width (3)" in out


def test_one_structure_is_shown_in_full(
    record: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    row = next(row for row in record["structures"] if row["name"] == "blocks:width")
    assert run(["inspect", "--task", TASK, "--structure", "blocks:width"]) == 0
    out = capsys.readouterr().out
    assert all(slot["tensor"] in out and slot["layer"] in out for slot in row["slots"])
    assert "blocks.0" not in out
    assert run(["inspect", "--task", TASK, "--structure", "*:width", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["structures"]
    assert [s["kind"] for s in shown] == ["width"] * 3


def test_a_recipe_says_what_is_offered(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("search: {kinds: [width]}\n")
    rows = edgeprune.inspect(TASK, recipe=recipe)["structures"]
    assert {row["kind"] for row in rows if row["offered"]} == {"width"}
    assert {row["kind"] for row in rows if not row["offered"]} == {"channels"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--structure", "blocks.7:chanels"], "did you mean 'blocks.7:channels'?"),
        (["--out", "picture.png"], "ends in .svg or .html"),
        (["--set", "net=branch"], f"{TASK}:"),
        (["--set", "nett=digits"], "no setting 'nett'"),
        (["--recipe", "defualt"], "did you mean 'default'"),
        (["--device", "x68"], "did you mean 'x86'"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", "--task", TASK, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [text for text in captured.err.splitlines() if text.startswith("edgeprune: ")]
    assert words in line


def test_what_keeps_a_whole_network_from_pruning_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Path(TASK).read_text().splitlines()
    place = 1 + next(i for i, text in enumerate(lines) if "torch.fft.fft(" in text)
    assert run(["inspect", "--task", TASK, "--set", "net=fourier", "--json"]) == 2
    captured = capsys.readouterr()
    (line,) = [text for text in captured.err.splitlines() if text.startswith("edgeprune: ")]
    assert f"fft_fft at inspected_task.py:{place} (operator without a rule)" in line
    record = json.loads(captured.out)
    assert record["structures"] == [] and record["parameters"]["share_prunable"] == 0.0
    groups = {group["operator"]: group for group in record["frozen"]}
    assert groups["fft_fft"]["tensors"] == ["up.weight"]
    assert groups["fft_fft"]["parameters"] == 32
    assert {row["tensor"] for row in record["unprunable"]} == {"up.weight", "down.weight"}
    assert all(row["reasons"] for row in record["unprunable"])


def test_a_layer_between_inputs_and_outputs_alone_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "single.py"
    task.write_text(Path(TASK).read_text().replace("DigitNet}", "").replace(
        '"digits": DigitNet', '"digits": lambda: nn.Linear(SIZE, 2)'
    ))  # fmt: skip
    assert run(["inspect", "--task", str(task)]) == 2
    captured = capsys.readouterr()
    assert "nothing of this model can be removed" in captured.err
    assert "outputs keep their shape" in captured.err
    assert "weights of which nothing can be pruned" in captured.out

"""Programs of torch.export: honest ones compute the same, others run nothing."""

import contextlib
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import InputError
from edgeprune.graph.capture import capture
from edgeprune.graph.network import analyse
from edgeprune.pt2_import import load_pt2


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 6))
        self.register_buffer("places", torch.arange(6.0), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        z = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        first, second = z.chunk(2, 1)
        with torch.no_grad():
            shift = y.reshape(y.shape[0], -1) + self.places
        made = self.body(torch.cat([second, first], 1)) * torch.tensor(2.0) + shift
        return {"made": made, "best": made.topk(2)[0]}


def inputs(batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    return (
        torch.randn(batch, 3, 8, 8, generator=generator),
        torch.randn(batch, 2, 3, generator=generator),
    )


def saved(path: Path, model: nn.Module | None = None) -> nn.Module:
    model = (model or Net()).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(
        model, inputs(), dynamic_shapes=({0: batch}, {0: batch}), strict=False
    )
    torch.export.save(program, path)
    return model


def test_an_honest_program_computes_the_same_and_is_prunable(tmp_path: Path) -> None:
    model = saved(tmp_path / "net.pt2")
    loaded = load_pt2(tmp_path / "net.pt2")
    assert set(dict(loaded.named_parameters())) == set(dict(model.named_parameters()))
    for batch in (2, 5):
        want, have = model(*inputs(batch)), loaded(*inputs(batch))
        torch.testing.assert_close(have, (want["made"], want["best"]), rtol=0, atol=0)
    captured = capture(loaded, inputs(1), inputs(3))
    assert not captured.notes
    network, direct = analyse(captured), analyse(capture(model, inputs(1), inputs(3)))
    assert list(network.structures) == list(direct.structures)
    assert {"conv", "body_0", "body_2"} <= {node.name for node in captured.module.graph.nodes}
    shrunk = network.shrink({name: [0, 1] for name in network.structures})
    assert shrunk(*inputs(4))[0].shape == (4, 6)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.marker,)


def rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """The archive with changed entries."""
    out = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as source:
        entries = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(out, "w") as target:
        for name, content in entries.items():
            target.writestr(name, change(name, content))
    return out


def with_json(path: Path, entry: str, edit: Callable[[Any], None]) -> Path:
    def change(name: str, content: bytes) -> bytes:
        if not name.endswith(entry):
            return content
        found = json.loads(content)
        edit(found)
        return json.dumps(found).encode()

    return rewritten(path, change)


def pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_a_payload_in_the_sample_inputs_is_never_unpickled(tmp_path: Path) -> None:
    """torch's own loader runs it; this one has no use for sample inputs."""
    model, marker = saved(tmp_path / "net.pt2"), tmp_path / "marker"
    evil = pickled(((Payload(marker),), {}))
    path = rewritten(
        tmp_path / "net.pt2",
        lambda name, content: evil if "sample_inputs" in name else content,
    )
    torch.testing.assert_close(load_pt2(path)(*inputs())[0], model(*inputs())["made"])
    assert not marker.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(Exception):  # whatever becomes of it, the payload has run
            torch.export.load(path)
    assert marker.exists()  # so the file is as dangerous as it is meant to be


@pytest.mark.parametrize("kind", ["weights", "constants"])
def test_pickled_payloads_are_refused(tmp_path: Path, kind: str) -> None:
    saved(tmp_path / "net.pt2")
    marker = tmp_path / "marker"

    def claim(config: Any) -> None:
        next(iter(config["config"].values()))["use_pickle"] = True

    path = with_json(tmp_path / "net.pt2", f"model_{kind}_config.json", claim)
    evil = pickle.dumps(Payload(marker))
    path = rewritten(
        path,
        lambda name, content: evil if f"data/{kind}/" in name and "json" not in name else content,
    )
    with pytest.raises(InputError, match="pickled, which can run code") as caught:
        load_pt2(path)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


def first_node(program: Any) -> Any:
    return next(
        node
        for node in program["graph_module"]["graph"]["nodes"]
        if node["target"].startswith("torch.ops.aten.conv2d")
    )


def call(target: str) -> Callable[[Any], None]:
    def edit(program: Any) -> None:
        node = first_node(program)
        node["target"] = target
        node["inputs"] = [{"name": "command", "arg": {"as_string": "touch marker"}, "kind": 1}]

    return edit


def rename_input(program: Any) -> None:
    text = json.dumps(program).replace('"x"', '"x=__import__(1)"')
    program.clear()
    program.update(json.loads(text))


def rename_weight(program: Any) -> None:
    for spec in program["graph_module"]["signature"]["input_specs"]:
        if "parameter" in spec:
            spec["parameter"]["parameter_name"] = 'conv"), print("x'


EDITS = {
    "another function": (call("torch.os.system"), "calls 'torch.os.system'"),
    "another module": (call("math.os.system"), "no operator of ATen"),
    "a file": (call("torch.ops.aten.from_file.default"), "no operator of ATen"),
    "another library": (call("torch.ops.acme.run.default"), "no operator of ATen"),
    "code as a name": (rename_input, "rename it"),
    "code as a weight's name": (rename_weight, "rename it"),
    "another version": (lambda p: p["schema_version"].update(major=99), "version 99"),
    "nothing": (lambda p: p.clear(), "damaged or of another torch"),
    "no graph": (lambda p: p.update(graph_module=[]), "damaged or of another torch"),
}


@pytest.mark.parametrize("name", EDITS)
def test_programs_that_do_more_than_compute_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "net.pt2")
    edit, words = EDITS[name]
    path = with_json(tmp_path / "net.pt2", "models/model.json", edit)
    with pytest.raises(InputError, match=words) as caught:
        load_pt2(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "marker").exists()


def test_sizes_and_guards_of_a_file_are_not_evaluated(tmp_path: Path) -> None:
    """torch reads both as Python expressions."""
    model, marker = saved(tmp_path / "net.pt2"), tmp_path / "marker"
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"

    def plant(program: Any) -> None:
        program["guards_code"] = [code]
        values = program["graph_module"]["graph"]["sym_int_values"].values()
        for value in values:
            value["as_expr"]["expr_str"] = code

    path = with_json(tmp_path / "net.pt2", "models/model.json", plant)
    torch.testing.assert_close(load_pt2(path)(*inputs())[0], model(*inputs())["made"])
    assert not marker.exists()


def test_tensors_larger_than_their_bytes_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "net.pt2")

    def grow(config: Any) -> None:
        config["config"]["conv.weight"]["tensor_meta"]["sizes"][0]["as_int"] = 10**12

    path = with_json(tmp_path / "net.pt2", "model_weights_config.json", grow)
    with pytest.raises(InputError, match="'conv.weight' does not fit its bytes"):
        load_pt2(path)


def test_archives_that_grow_when_unpacked_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/models/model.json", "0" * 10_000_000)
    with pytest.raises(InputError, match="is compressed"):
        load_pt2(tmp_path / "bomb.pt2")


def test_files_that_are_missing_foreign_or_cut_off(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_pt2(tmp_path / "none.pt2")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt2")
    with pytest.raises(InputError, match="no program"):
        load_pt2(tmp_path / "weights.pt2")
    saved(tmp_path / "net.pt2")
    whole = (tmp_path / "net.pt2").read_bytes()
    (tmp_path / "cut.pt2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged or no .pt2 file"):
        load_pt2(tmp_path / "cut.pt2")


def test_a_program_that_trains_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    x = torch.randn(2, 3, 8, 8)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "net.pt2")
    loaded_or_error: Any
    try:
        loaded_or_error = load_pt2(tmp_path / "net.pt2")
    except InputError as error:
        loaded_or_error = str(error)
    # Statistics that are written in place either are told at once or when the graph is captured.
    if isinstance(loaded_or_error, str):
        assert "eval mode" in loaded_or_error
    else:
        summary = analyse(capture(loaded_or_error, (x,))).summary()
        assert summary.share_prunable < 1.0

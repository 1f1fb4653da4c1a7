"""Files that native code writes are whole or absent as well: weights, ONNX, OpenVINO's pair."""

import shutil
import sys
from pathlib import Path

import pytest
from inject import Fault, run, run_on_small_disk, small_disks_available

from edgeprune.atomic import remove_partials
from edgeprune.latency.reference_sweep import Layer, layer_onnx
from edgeprune.runtimes import CompileOptions, runtime

# Writes 256 KiB of weights over an old file; first the inputs of the writer, elsewhere.
PROGRAM = """
import sys
from pathlib import Path
import torch
from edgeprune.errors import EdgepruneError
from edgeprune.graph.capture import capture
from edgeprune.graph.onnx_export import export_onnx
from edgeprune.graph.weights import save_weights
from edgeprune.runtimes import runtime

path, elsewhere = Path(sys.argv[1]), Path(sys.argv[2])
inputs = (torch.ones(1, 256),)
module = capture(torch.nn.Linear(256, 256, bias=False).eval(), inputs).module
if path.suffix == ".xml":
    export_onnx(module, inputs, elsewhere / "model.onnx")
path.write_text("old")
try:
    if path.suffix == ".safetensors":
        save_weights(module, path)
    elif path.suffix == ".onnx":
        export_onnx(module, inputs, path)
    else:
        runtime("openvino").convert(elsewhere / "model.onnx", path)
except EdgepruneError as error:
    print(f"error: {error}", file=sys.stderr)
    assert [file.read_text() for file in path.parent.iterdir()] == ["old"]
    sys.exit(error.exit_code)
assert path.stat().st_size > 1000
"""
CONVERT = """
import sys
from pathlib import Path
from edgeprune.runtimes import runtime
runtime("openvino").convert(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.skipif(not small_disks_available(), reason="no file system can be mounted here")
@pytest.mark.parametrize("name", ["weights.safetensors", "model.onnx", "model.xml"])
@pytest.mark.parametrize("size_kib", [8, 130, 260, 400])
def test_a_full_disk_is_one_line_and_the_old_file_stays(
    name: str, size_kib: int, tmp_path: Path
) -> None:
    disk, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"
    disk.mkdir()
    elsewhere.mkdir()
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(disk / name), str(elsewhere)]
    outcome = run_on_small_disk(command, disk, size_kib * 1024, timeout_s=120)
    if size_kib == 400:
        assert (outcome.code, outcome.stderr) == (0, "")
        return
    assert outcome.code == 2, outcome.stderr
    assert outcome.stderr == (
        f"error: the disk is full: cannot write {disk / name}; "
        "free some space and run again to resume\n"
    )


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders with an ONNX file and its artifact by the width of the model."""
    folders = {width: tmp_path_factory.mktemp(f"width{width}") for width in (8, 9)}
    for width, folder in folders.items():
        (folder / "model.onnx").write_bytes(layer_onnx(Layer("matmul", 4, width, width)))
        runtime("openvino").convert(folder / "model.onnx", folder / "model.xml")
    return folders


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("effect", ["kill_before", "kill_after"])
@pytest.mark.parametrize("at", [1, 2])
def test_a_killed_conversion_mixes_no_files_and_leaves_no_rest(
    call: str, at: int, effect: str, converted: dict[int, Path], tmp_path: Path
) -> None:
    folder, new = tmp_path / "run", converted[9] / "model.onnx"
    shutil.copytree(converted[8], folder)
    command = [sys.executable, "-c", CONVERT, str(new), str(folder / "model.xml")]
    outcome = run(command, folder, Fault(call, at, effect))  # type: ignore[arg-type]
    assert outcome.code == -9
    remove_partials(folder)
    assert {path.name for path in folder.iterdir()} <= {"model.onnx", "model.xml", "model.bin"}
    if (folder / "model.xml").exists():
        session = runtime("openvino").load(folder / "model.xml", CompileOptions())
        width = session.made_up_inputs()[0].shape[-1]
        weights = (folder / "model.bin").read_bytes()
        assert weights == (converted[width] / "model.bin").read_bytes()

"""OpenVINO on tiny models: same figures as torch, names kept, profile, int8, errors, silence."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx as onnx_library
import pytest
import torch
from torch import nn

from edgeprune.errors import InputError
from edgeprune.graph.capture import capture
from edgeprune.graph.onnx_export import export_onnx
from edgeprune.kernels import SparseLinear, pack
from edgeprune.kernels.onnx_rewrite import Replacement, put_sparse_layers
from edgeprune.runtimes import CompileOptions, runtime


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 5)).eval()
    example = torch.randn(1, 3, 8, 8)
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    torch.onnx.export(net, (example,), str(path), dynamo=False)
    return path, net, example


@pytest.fixture(scope="module")
def artifact(onnx: tuple[Path, nn.Module, torch.Tensor], tmp_path_factory) -> Path:
    return runtime("openvino").convert(onnx[0], tmp_path_factory.mktemp("ir") / "net")


def test_registry_knows_and_suggests() -> None:
    with pytest.raises(InputError, match="did you mean 'openvino'"):
        runtime("openvno")


@pytest.mark.parametrize(("precision", "tolerance"), [("f32", 1e-4), ("default", 0.05)])
def test_outputs_agree_with_torch(onnx, artifact, precision: str, tolerance: float) -> None:
    _, net, example = onnx
    session = runtime("openvino").load(artifact, CompileOptions(precision=precision))
    for _ in range(2):
        inputs = torch.randn_like(example)
        (output,) = session.run((inputs.numpy(),))
        expected = net(inputs).detach().numpy()
        assert np.abs(output - expected).max() <= tolerance * np.abs(expected).max()


def test_outputs_are_copies(artifact, onnx) -> None:
    session = runtime("openvino").load(artifact, CompileOptions())
    (first,) = session.run((onnx[2].numpy(),))
    kept = first.copy()
    session.run((onnx[2].numpy() * 3,))
    assert np.array_equal(first, kept)


def test_layer_times_carry_the_source_names(artifact, onnx) -> None:
    session = runtime("openvino").load(artifact, CompileOptions(profile=True))
    session.set_inputs((onnx[2].numpy(),))
    for _ in range(20):
        session.infer_once()
    layers = session.layer_times()
    convolutions = [layer for layer in layers if layer.layer_type == "Convolution"]
    assert len(convolutions) == 1
    assert "/0/Conv" in convolutions[0].original_names
    assert convolutions[0].shapes == ((1, 16, 6, 6),)
    assert all(layer.us > 0 for layer in layers)


def test_int8_stays_close_and_becomes_smaller(onnx, artifact, tmp_path: Path) -> None:
    path, _, example = onnx
    batches = [(np.random.default_rng(i).standard_normal((1, 3, 8, 8)),) for i in range(8)]
    batches = [tuple(value.astype(np.float32) for value in batch) for batch in batches]
    backend = runtime("openvino")
    quantised = backend.quantise_int8(path, tmp_path / "int8.xml", batches)
    assert 0 < backend.size_bytes(quantised) < backend.size_bytes(artifact)
    dense = backend.load(artifact, CompileOptions(precision="f32")).run((example.numpy(),))[0]
    small = backend.load(quantised, CompileOptions()).run((example.numpy(),))[0]
    assert 0 < np.abs(dense - small).max() < 0.3 * np.abs(dense).max()


def test_bad_files_and_options_are_input_errors(tmp_path: Path, artifact: Path, onnx) -> None:
    backend = runtime("openvino")
    broken = tmp_path / "broken.xml"
    broken.write_text("<net")
    (tmp_path / "broken.onnx").write_bytes(b"\x00garbage")
    with pytest.raises(InputError, match=r"broken\.xml"):
        backend.load(broken, CompileOptions())
    with pytest.raises(InputError, match="not there"):
        backend.load(tmp_path / "none.xml", CompileOptions())
    with pytest.raises(InputError, match="f13"):
        backend.load(artifact, CompileOptions(precision="f13"))
    with pytest.raises(InputError, match="cannot convert"):
        backend.convert(tmp_path / "broken.onnx", tmp_path / "out.xml")
    with pytest.raises(InputError, match="1 inputs, 2 were given"):
        backend.load(artifact, CompileOptions()).set_inputs((np.zeros(1), np.zeros(1)))
    with pytest.raises(InputError, match="no batch"):
        backend.quantise_int8(onnx[0], tmp_path / "out.xml", [])
    with pytest.raises(InputError, match=r"NNCF cannot quantise .*net\.onnx") as caught:
        batch = (np.zeros((1, 3, 9, 9), np.float32),)
        backend.quantise_int8(onnx[0], tmp_path / "out.xml", [batch])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("out.*"))


def test_another_shape_is_named_and_leaves_the_session_as_it_was(artifact, onnx) -> None:
    session = runtime("openvino").load(artifact, CompileOptions())
    (before,) = session.run((onnx[2].numpy(),))
    for shape in [(32, 3, 8, 8), (1, 3, 8, 9), (3, 8, 8)]:
        given = ",".join(map(str, shape))
        with pytest.raises(InputError, match=rf"input 0 .*\[{given}\].*\[1,3,8,8\]"):
            session.run((np.zeros(shape, np.float32),))
    session.infer_once()
    assert np.array_equal(session.run((onnx[2].numpy(),))[0], before)


def test_the_telemetry_package_is_never_imported(onnx, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from edgeprune.runtimes import runtime\n"
        "import numpy as np\n"
        f"runtime('openvino').quantise_int8(Path({str(onnx[0])!r}), Path({str(tmp_path / 'q')!r}),"
        " [(np.zeros((1, 3, 8, 8), np.float32),)])\n"
        "bad = [n for n in sys.modules if n.startswith('openvino_telemetry') and sys.modules[n]]\n"
        "import nncf.telemetry, openvino.tools.ovc as ovc\n"
        "assert 'Mock' in type(nncf.telemetry.telemetry).__name__, nncf.telemetry.telemetry\n"
        "assert type(ovc.telemetry).__module__.endswith('telemetry_stub')\n"
        "sys.exit(len(bad))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_a_model_with_sparse_layers_is_converted_and_opened(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 8)).eval()
    for layer in (net[0], net[2]):
        layer.weight.data *= (
            (torch.rand(len(layer.weight) // 4, 1, 1) > 0.4).repeat(1, 4, 1).flatten(0, 1)
        )
    example = torch.randn(3, 24)
    captured = capture(net, (example,))
    export_onnx(captured.module, (example,), tmp_path / "net.onnx")
    names = [n.name for n in captured.module.graph.nodes if n.op == "call_function"]
    layers = tuple(
        SparseLinear(pack(layer.weight), layer.bias.detach().numpy(), activation)
        for layer, activation in ((net[0], "relu"), (net[2], "none"))
    )
    model = onnx_library.load(tmp_path / "net.onnx")
    put_sparse_layers(model, [Replacement(tuple(names), layers)])
    onnx_library.save(model, tmp_path / "sparse.onnx")
    artifact = runtime("openvino").convert(tmp_path / "sparse.onnx", tmp_path / "sparse")
    session = runtime("openvino").load(artifact, CompileOptions(precision="f32", profile=True))
    (output,) = session.run((example.numpy(),))
    np.testing.assert_allclose(output, net(example).detach().numpy(), atol=1e-5)
    assert [layer.layer_type for layer in session.layer_times()] == ["Reference"]


class Recurrent(nn.Module):
    """Two recurrent modules that follow one another, and what reads their states."""

    def __init__(self, kind: type[nn.RNNBase], two_directions: bool) -> None:
        super().__init__()
        self.first = kind(6, 8, 2, batch_first=True, bidirectional=two_directions)
        self.second = kind(16 if two_directions else 8, 8, bidirectional=two_directions)
        self.head: nn.Linear | None = None

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, _ = self.first(x)
        x, states = self.second(x)
        if self.head is not None:
            x = self.head(x)
        return x, states[0] if isinstance(states, tuple) else states


@pytest.mark.parametrize("two_directions", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_bear_their_names(
    kind: type[nn.RNNBase], two_directions: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net, x = Recurrent(kind, two_directions).eval(), torch.randn(3, 5, 6)
    path = tmp_path / "net.onnx"
    export_onnx(capture(net, (x,)).module, (x,), path)
    artifact = runtime("openvino").convert(path, tmp_path / "net")
    session = runtime("openvino").load(artifact, CompileOptions(profile=True, precision="f32"))
    for _ in range(2):
        x = torch.randn(3, 5, 6)
        for found, wanted in zip(session.run((x.numpy(),)), net(x), strict=True):
            assert np.abs(found - wanted.detach().numpy()).max() <= 1e-5
    names = [layer.name for layer in session.layer_times() if layer.layer_type.endswith("Sequence")]
    directions = 1 + two_directions
    modules = Counter(name.split("/")[1] for name in names)
    assert modules == {"first": 2 * directions, "second": directions}


def test_recurrent_layers_bear_their_names_beside_sparse_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = Recurrent(nn.GRU, False).eval(), torch.randn(3, 5, 6)
    net.head = head = nn.Linear(8, 16)
    module = capture(net, (x,)).module
    export_onnx(module, (x,), tmp_path / "net.onnx")
    model = onnx_library.load(tmp_path / "net.onnx")
    layer = SparseLinear(pack(head.weight), head.bias.detach().numpy(), "none")
    put_sparse_layers(model, [Replacement(("head",), (layer,))])
    onnx_library.save(model, tmp_path / "sparse.onnx")
    artifact = runtime("openvino").convert(tmp_path / "sparse.onnx", tmp_path / "sparse")
    session = runtime("openvino").load(artifact, CompileOptions(profile=True))
    session.run((x.numpy(),))
    layers = session.layer_times()
    assert "Reference" in [layer.layer_type for layer in layers]
    names = [layer.name for layer in layers if layer.layer_type == "GRUSequence"]
    assert Counter(name.split("/")[1] for name in names) == {"first": 2, "second": 1}

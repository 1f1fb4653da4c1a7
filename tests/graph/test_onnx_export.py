"""ONNX files compute the same and name their nodes after the graph's."""

from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from edgeprune.errors import InputError
from edgeprune.graph.capture import capture
from edgeprune.graph.network import analyse
from edgeprune.graph.onnx_attention import with_plain_attention
from edgeprune.graph.onnx_export import export_onnx
from edgeprune.graph.onnx_open import export_open_onnx


@pytest.mark.parametrize("name", ["encoder", "residual_stages"])
@pytest.mark.parametrize("emptied", [False, True])
def test_export_of_a_shrunk_network(name: str, emptied: bool, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    network = analyse(capture(*networks.CASES[name]()))
    inputs = network.captured.example_inputs
    keep = {
        n: range(0 if emptied and s.removable and s.kind != "width" else 2)
        for n, s in network.structures.items()
    }
    shrunk = network.shrink(keep)
    export_onnx(shrunk, inputs, tmp_path / "m.onnx", input_names=["first"])
    model = onnx.load(tmp_path / "m.onnx")
    assert [i.name for i in model.graph.input] == ["first"]
    operators = [n.name for n in model.graph.node if n.op_type in ("Conv", "MatMul", "Gemm")]
    nodes = {n.name for n in shrunk.graph.nodes}
    assert operators
    assert all(name.split("/")[1] in nodes for name in operators)
    compiled = openvino.Core().compile_model(
        str(tmp_path / "m.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    have = compiled([x.numpy() for x in inputs])[0]
    np.testing.assert_allclose(have, shrunk(*inputs)[0].detach().numpy(), rtol=1e-3, atol=1e-5)


class Attention(torch.nn.Module):
    """Attention with a mask of one kind or another."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.query = torch.nn.Linear(96, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = x.unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        if self.kind != "unprojected":
            query = self.query(x).unflatten(-1, (4, 8)).transpose(1, 2)
        mask = None
        if self.kind in ("boolean", "numbers"):
            mask = x[:, None, None, :, 0] > -1.0
        if self.kind == "numbers":
            mask = torch.where(mask, 0.5, -3.0)
        causal, scale = self.kind == "causal", 0.3 if self.kind == "scaled" else None
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, mask, is_causal=causal, scale=scale
        )


@pytest.mark.parametrize("kind", ["plain", "boolean", "numbers", "causal", "scaled", "unprojected"])
def test_attention_is_written_plainly_and_computes_the_same(kind: str, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    x = torch.randn(2, 10, 96, generator=torch.Generator().manual_seed(0))
    captured = capture(Attention(kind).eval(), (x,))
    export_onnx(with_plain_attention(captured.module), (x,), tmp_path / "m.onnx")
    compiled = openvino.Core().compile_model(
        str(tmp_path / "m.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    have = compiled([x.numpy()])[0]
    wanted = captured.module(x)[0].detach().numpy()
    np.testing.assert_allclose(have, wanted, rtol=1e-4, atol=1e-5)
    operators = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert kind == "causal" or "IsNaN" not in operators
    assert ("Mul" in operators) == (kind in ("causal", "unprojected"))


def test_a_dynamic_graph_is_written_at_the_example_shape(tmp_path: Path) -> None:
    model, _ = networks.CASES["encoder"]()
    example = (torch.randint(0, 20, (1, 7)),)
    captured = capture(model, example, (torch.randint(0, 20, (3, 5)),))
    export_onnx(captured.module, example, tmp_path / "m.onnx")
    (found,) = onnx.load(tmp_path / "m.onnx").graph.input
    assert [d.dim_value for d in found.type.tensor_type.shape.dim] == [1, 7]


@pytest.mark.parametrize("names", [("51", "a:0", "52"), ("x/y", "x/y_1", "/up/Gemm_output_0")])
def test_a_file_has_the_names_of_the_file_it_came_from(names: tuple[str, ...], tmp_path) -> None:
    """Also such as torch's exporter takes for its own."""

    class Net(torch.nn.Module):
        onnx_input_names, onnx_output_names = names[:2], (names[2], "sum")

        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return self.down(self.up(x).relu()), x + y

    runtime = pytest.importorskip("onnxruntime")
    inputs = torch.randn(2, 4), torch.randn(2, 4)
    network = analyse(capture(Net().eval(), inputs))
    shrunk = network.shrink({name: [0, 3] for name in network.structures})
    export_onnx(with_plain_attention(shrunk), inputs, tmp_path / "m.onnx")
    session = runtime.InferenceSession(str(tmp_path / "m.onnx"))
    found = session.run([names[2], "sum"], {n: x.numpy() for n, x in zip(names, inputs)})
    for have, want in zip(found, shrunk(*inputs), strict=True):
        np.testing.assert_allclose(have, want.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_an_input_that_nothing_reads_stays_an_input(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(8, 4)

        def forward(self, spare: Tensor, x: Tensor, like: Tensor) -> Tensor:
            return self.layer(x) * like.shape[0]

    inputs = (torch.randn(2, 3), torch.randn(5, 8), torch.zeros(3, 5, dtype=torch.int64))
    samples = (torch.randn(2, 3), torch.randn(4, 8), torch.zeros(7, 5, dtype=torch.int64))
    module = capture(Net(), inputs, samples).module
    export_onnx(module, inputs, tmp_path / "m.onnx")
    axes = export_open_onnx(module, inputs, tmp_path / "open.onnx")
    assert axes == ({}, {0: "x_0"}, {0: "like_0"})
    for file, tries in (("m.onnx", [inputs]), ("open.onnx", [inputs, samples])):
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        model = openvino.Core().compile_model(str(tmp_path / file), "CPU", exact)
        assert [port.any_name for port in model.inputs] == ["spare", "x", "like"]
        for given in tries:
            want = module(*given)[0].detach().numpy()
            np.testing.assert_allclose(model([x.numpy() for x in given])[0], want, rtol=1e-4)


def test_a_model_without_open_sizes_is_not_written_with_some(tmp_path: Path) -> None:
    module = capture(torch.nn.Linear(4, 2), (torch.randn(1, 4),)).module
    with pytest.raises(InputError, match="no open size"):
        export_open_onnx(module, (torch.randn(1, 4),), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_told_in_one_line_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """torch's exporter prints the whole graph to stdout, where results go."""

    class Spectrum(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.rfft(x, n=5).abs()

    inputs = (torch.randn(2, 8),)
    captured = capture(Spectrum(), inputs)
    with pytest.raises(InputError, match="aten::fft_rfft") as told:
        export_onnx(captured.module, inputs, tmp_path / "m.onnx")
    assert "feel free" not in str(told.value)
    assert capfd.readouterr().out == ""
    assert not list(tmp_path.iterdir())

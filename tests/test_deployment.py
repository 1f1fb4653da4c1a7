"""The artifact of a graph whose layers have formats computes what the graph simulates."""

import re
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.deployment import write_artifact
from edgeprune.formats import DENSE_INT8, Formats, parse_format
from edgeprune.graph.blocks import mask_by_magnitude
from edgeprune.graph.capture import capture
from edgeprune.graph.simulation import simulate
from edgeprune.runtimes import CompileOptions, runtime

ROWS, WIDTH = 24, 64


class Block(nn.Module):
    """Attention and a feed-forward block, each beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH, bias=False)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        mixed = F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        x = self.norm(x + self.out(mixed))
        return x + self.down(F.gelu(self.up(x)))


class Convolutions(nn.Module):
    """Two residual convolutions with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList([nn.BatchNorm2d(16), nn.BatchNorm2d(16)])

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norms[0](x + self.first(x)))
        return F.relu(x + self.norms[1](self.second(x)))


def built(
    net: nn.Module, x: Tensor, formats: Formats, folder: Path, precision: str = "f32"
) -> tuple[Tensor, Tensor]:
    """What the simulation and the artifact give."""
    module = capture(net, (x,)).module
    mask_by_magnitude(module, formats)
    onnx, out = folder / "model.onnx", folder / "model.xml"
    samples = [(x.numpy() * scale,) for scale in (1.0, 0.9)]
    artifact = write_artifact(module, formats, (x,), onnx, out, runtime("openvino"), samples)
    session = runtime("openvino").load(artifact, CompileOptions(precision=precision))
    with torch.no_grad():
        (wanted,) = simulate(module, formats)(x)
    assert not (folder / "sparse.onnx").exists()
    return wanted, torch.from_numpy(np.array(session.run((x.numpy(),))[0]))


def assert_near(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert float((found - wanted).norm() / wanted.norm()) < tolerance


@pytest.mark.parametrize("layers", [("up", "down"), ("up",), ("query", "out", "down")])
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("f32-4x1-70", 1e-5),
        ("f32-16x1-70", 1e-5),
        ("bf16-4x1-70", 3e-3),
        ("int8-4x1-70", 5e-3),
        ("int8-16x4-70", 5e-3),
    ],
)
def test_sparse_layers_compute_what_the_masked_network_does(
    layers: tuple[str, ...], name: str, tolerance: float, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net, x = Block().eval(), torch.randn(1, ROWS, WIDTH)
    formats = dict.fromkeys(layers, parse_format(name))
    wanted, found = built(net, x, formats, tmp_path)
    assert_near(found, wanted, tolerance)
    text = (tmp_path / "model.xml").read_text()
    in_a_row = {"up", "down"} <= set(layers)
    assert text.count('type="SparseLinear"') == len(layers) - in_a_row


def test_single_layers_become_int8_and_others_do_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = Block().eval(), torch.randn(1, ROWS, WIDTH)
    formats = {"up": DENSE_INT8, "out": DENSE_INT8, "query": parse_format("int8-16x4-50")}
    wanted, found = built(net, x, formats, tmp_path)
    assert_near(found, wanted, 0.03)
    text = (tmp_path / "model.xml").read_text()
    names = re.findall(r'name="([^"]*)"', text)
    assert {n.split("/")[1] for n in names if n.endswith("fq_weights_1")} == {"up", "out"}
    assert not any("smooth_quant" in name for name in names)


def test_int8_goes_from_convolution_to_convolution(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = Convolutions().eval(), torch.randn(1, 16, 12, 12)
    wanted, found = built(net, x, dict.fromkeys(("first", "second"), DENSE_INT8), tmp_path)
    assert_near(found, wanted, 0.05)


class Shortcuts(nn.Module):
    """Residual blocks of two convolutions."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.first, self.second = (
            nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(blocks)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.first, self.second, strict=True):
            x = F.relu(x + second(F.relu(first(x))))
        return x


def rounded_additions(artifact: Path) -> list[int]:
    """Of each addition of two values, in order, how many of them are rounded to int8 before."""
    model = ov.Core().read_model(artifact)
    found = []
    for op in model.get_ordered_ops():
        sources = [value.get_source_output().get_node() for value in op.inputs()]
        names = [source.get_type_name() for source in sources]
        if op.get_type_name() == "Add" and "Constant" not in names and "Convert" not in names:
            found.append(names.count("FakeQuantize"))
    return found


@pytest.mark.parametrize(
    ("layers", "rounded"),
    [
        (("second_0",), [0, 0, 0]),
        (("first_0", "first_2", "second_2"), [0, 0, 0]),
        (("first_0", "second_0", "first_1", "second_1"), [2, 2, 0]),
        (("first_0", "second_0", "first_1", "second_1", "first_2", "second_2"), [2, 2, 2]),
    ],
)
def test_shortcuts_are_rounded_only_beside_int8_layers(
    layers: tuple[str, ...], rounded: list[int], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net, x = Shortcuts().eval(), torch.randn(1, 16, 12, 12)
    wanted, found = built(net, x, dict.fromkeys(layers, DENSE_INT8), tmp_path)
    assert_near(found, wanted, 0.05)
    assert rounded_additions(tmp_path / "model.xml") == rounded


@pytest.mark.parametrize("dense", [("first_0", "second_0"), ("second_1",), ("first_1", "second_1")])
def test_int8_beside_bf16_compiles_where_no_matrix_product_follows(
    dense: tuple[str, ...], tmp_path: Path
) -> None:
    """OpenVINO keeps what follows the last one in float32, back along the shortcuts."""
    torch.manual_seed(0)
    net, x = Shortcuts().eval(), torch.randn(1, 16, 12, 12)
    layers = {f"{side}_{i}" for side in ("first", "second") for i in range(3)}
    formats = dict.fromkeys(sorted(layers.difference(dense)), DENSE_INT8)
    wanted, found = built(net, x, formats, tmp_path, precision="bf16")
    assert_near(found, wanted, 0.05)


@pytest.mark.parametrize(
    ("name", "tolerance"), [("f32-4x1-70", 1e-5), ("bf16-4x1-70", 5e-3), ("int8-4x1-70", 0.02)]
)
def test_sparse_convolutions_take_their_normalisation_along(
    name: str, tolerance: float, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net, x = Convolutions().eval(), torch.randn(1, 16, 12, 12)
    for norm in net.norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    formats = dict.fromkeys(("first", "second"), parse_format(name))
    wanted, found = built(net, x, formats, tmp_path)
    assert_near(found, wanted, tolerance)
    assert (tmp_path / "model.xml").read_text().count('type="SparseConvolution"') == 2


def test_layers_that_are_gone_are_passed_over(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = Block().eval(), torch.randn(1, ROWS, WIDTH)
    module = capture(net, (x,)).module
    formats = {"nowhere": parse_format("f32-4x1-70")}
    onnx, out = tmp_path / "model.onnx", tmp_path / "model.xml"
    artifact = write_artifact(module, formats, (x,), onnx, out, runtime("openvino"))
    assert "SparseLinear" not in artifact.read_text()

"""The convolution inside OpenVINO equals torch's, and says in one line what does not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
import torch
from kernel_reference import block_sparse
from onnx import TensorProto, helper
from torch import fx, nn

import edgeprune
from edgeprune.graph.capture import capture
from edgeprune.graph.onnx_export import export_onnx
from edgeprune.kernels import SparseConvolution, pack
from edgeprune.kernels.onnx_node import DOMAIN, DOMAIN_VERSION, convolution_node
from edgeprune.kernels.onnx_rewrite import Replacement, put_sparse_layers

CHANNELS, OUTPUTS = 6, 20
TOLERANCE = {"f32": 1e-5, "bf16": 2e-2, "int8": 4e-2}


@pytest.fixture
def core() -> ov.Core:
    made = ov.Core()
    made.add_extension(str(edgeprune.openvino_extension()))
    return made


def masked(kernel: int, **settings: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    made = nn.Conv2d(CHANNELS, OUTPUTS, kernel, **settings).eval()
    rng = np.random.default_rng(0)
    mask = block_sparse(rng, OUTPUTS, CHANNELS * kernel * kernel, (4, 1), 0.7) != 0
    made.weight.data *= torch.from_numpy(mask).reshape(made.weight.shape)
    return made


def pair(values: Any) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def sparse(layer: nn.Conv2d, precision: Any = "f32", activation: str = "none") -> SparseConvolution:
    bias = np.zeros(OUTPUTS, np.float32) if layer.bias is None else layer.bias.detach().numpy()
    return SparseConvolution(
        pack(layer.weight.flatten(1), (4, 1), precision),
        bias,
        pair(layer.kernel_size),
        pair(layer.stride),
        pair(layer.padding),
        pair(layer.dilation),
        activation,
    )


def saved(layer: SparseConvolution, shape: list[Any], path: Path, **altered: Any) -> Path:
    node, constants = convolution_node(layer, "conv", "x", "y")
    for name, value in altered.items():
        found = next(i for i, attribute in enumerate(node.attribute) if attribute.name == name)
        node.attribute[found].CopyFrom(helper.make_attribute(name, value))
    graph = helper.make_graph(
        [node],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
@pytest.mark.parametrize(
    ("kernel", "settings"),
    [(1, {}), (3, {"padding": 1}), (3, {"stride": 2}), (5, {"dilation": 2, "padding": 3})],
)
def test_it_equals_torch(
    core: ov.Core, precision: str, kernel: int, settings: dict[str, int], tmp_path: Path
) -> None:
    layer = masked(kernel, **settings)
    path = saved(sparse(layer, precision, "relu"), [2, CHANNELS, 13, 17], tmp_path / "c.onnx")
    x = torch.randn(2, CHANNELS, 13, 17)
    expected = torch.relu(layer(x)).detach().numpy()
    compiled = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(x.numpy())[0]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE[precision] * expected.max())


def test_any_batch_and_size_through_a_saved_ir(core: ov.Core, tmp_path: Path) -> None:
    layer = masked(3, padding=1, stride=2)
    model = core.read_model(saved(sparse(layer), ["n", CHANNELS, "h", "w"], tmp_path / "c.onnx"))
    ov.save_model(model, tmp_path / "c.xml", compress_to_fp16=False)
    text = (tmp_path / "c.xml").read_text()
    assert 'type="SparseConvolution" version="edgeprune"' in text
    for attribute in ('kernel="3, 3"', 'stride="2, 2"', 'padding="1, 1"', 'block="4x1"'):
        assert attribute in text
    compiled = core.compile_model(tmp_path / "c.xml")
    for shape in ((1, 8, 8), (3, 1, 1), (2, 30, 7), (0, 4, 4)):
        x = torch.randn(shape[0], CHANNELS, *shape[1:])
        found = compiled(x.numpy())[0]
        np.testing.assert_allclose(found, layer(x).detach().numpy(), atol=1e-5)


def test_one_thread_and_two_give_the_same_bits(core: ov.Core, tmp_path: Path) -> None:
    layer = masked(3, padding=1)
    path = saved(sparse(layer, "int8", "gelu"), [1, CHANNELS, 9, 11], tmp_path / "c.onnx")
    x = torch.randn(1, CHANNELS, 9, 11).numpy()
    one, two = (
        core.compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": threads})(x)[0]
        for threads in (1, 2)
    )
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("altered", "message"),
    [
        ({"kernel": [2, 2]}, "a kernel of 2x2 takes a multiple of 4 inputs"),
        ({"kernel": [1, 3]}, "x has 6 channels, the packed weight 18"),
        ({"kernel": [3]}, "kernel, stride and dilation are two numbers"),
        ({"stride": [0, 1]}, "kernel, stride and dilation are two numbers"),
        ({"padding": [-1, 0]}, "padding two from 0 on"),
        ({"dilation": [9, 9]}, "the kernel is larger than the padded image"),
        ({"activation": "tanh"}, "activation 'tanh' is unknown"),
        ({"scale": "-1"}, "is no number from 0 on"),
        ({"zero_point": 256}, "zero point 256 is no byte"),
    ],
)
def test_altered_attributes_are_refused(
    core: ov.Core, altered: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = saved(sparse(masked(3)), [1, CHANNELS, 9, 9], tmp_path / "c.onnx", **altered)
    with pytest.raises(RuntimeError, match=message):
        core.compile_model(path)


def test_an_image_that_is_too_small_is_refused_when_it_comes(core: ov.Core, tmp_path: Path) -> None:
    path = saved(sparse(masked(3)), [1, CHANNELS, "h", "w"], tmp_path / "c.onnx")
    compiled = core.compile_model(path)
    with pytest.raises(RuntimeError, match="larger than the padded image"):
        compiled(np.zeros((1, CHANNELS, 2, 9), np.float32))


class Images(nn.Module):
    """Two convolutions around an activation, with a residual."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.first = masked(3, padding=1)
        self.activation = activation
        self.second = nn.Conv2d(OUTPUTS, CHANNELS, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(self.activation(self.first(x)))


def scopes(graph: fx.Graph, text: str) -> list[str]:
    return [node.name for node in graph.nodes if text in str(node.target)]


@pytest.mark.parametrize(
    ("activation", "name"), [(nn.ReLU(), "relu"), (nn.SiLU(), "silu"), (nn.GELU(), "gelu")]
)
def test_a_replaced_convolution_computes_the_same(
    core: ov.Core, activation: nn.Module, name: str, tmp_path: Path
) -> None:
    network = Images(activation).eval()
    x = torch.randn(2, CHANNELS, 10, 12)
    module = capture(network, (x,)).module
    export_onnx(module, (x,), tmp_path / "dense.onnx")
    model = onnx.load(tmp_path / "dense.onnx")
    first, _ = scopes(module.graph, "conv2d")
    (behind,) = scopes(module.graph, name)
    put_sparse_layers(model, [Replacement((first, behind), sparse(network.first, "f32", name))])
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("SparseConvolution") == 1
    assert kinds.count("Conv") == 1
    onnx.save(model, tmp_path / "sparse.onnx")
    compiled = core.compile_model(
        tmp_path / "sparse.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    expected = network(x).detach().numpy()
    np.testing.assert_allclose(compiled(x.numpy())[0], expected, atol=1e-5)

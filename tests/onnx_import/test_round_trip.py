"""Files of several frameworks in, pruned, and out again: as ONNX Runtime computes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from in_onnxruntime import graph_of, numbers, run
from onnx import helper
from torch import Tensor, nn

from edgeprune.graph.capture import capture
from edgeprune.graph.network import Network, analyse
from edgeprune.graph.onnx_attention import with_plain_attention
from edgeprune.graph.onnx_export import export_onnx
from edgeprune.graph.onnx_open import export_open_onnx
from edgeprune.graph.sites import find_sites
from edgeprune.onnx_import import OnnxModel, load_onnx

# The exporters that are used here warn of their end.
pytestmark = pytest.mark.filterwarnings("ignore")

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


class Block(nn.Module):
    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1))
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(F.adaptive_avg_pool2d(self.layer2(self.layer1(x)), 1).flatten(1))


def as_trained(model: nn.Module) -> nn.Module:
    """Statistics and vectors unlike those of a new model, which exporters merge."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.dim() == 1 and value.is_floating_point():
                noise = 0.2 * torch.randn(value.shape, generator=generator)
                value.copy_((value + noise).abs() + 0.1 if "var" in name else value + noise)
    return model.eval()


def half_of(network: Network) -> dict[str, range]:
    return {name: range(max(1, s.units // 2)) for name, s in network.structures.items()}


def agree(model: OnnxModel, path: Path, *inputs: Tensor) -> None:
    """The module gives what ONNX Runtime gives for the file."""
    with torch.no_grad():
        found = model(*inputs)
    for have, want in zip(found, run(path, *inputs), strict=True):
        np.testing.assert_allclose(have.numpy(), want, **CLOSE)


def prune_and_write(
    path: Path, example: Sequence[Tensor], sample: Sequence[Tensor], out: Path
) -> Network:
    """Half of each structure of a file goes; what is left is written under the same names."""
    network = analyse(capture(load_onnx(path), example, sample))
    assert not network.captured.notes
    shrunk = network.shrink(half_of(network))
    left = sum(p.numel() for p in shrunk.parameters())
    assert left < 0.6 * sum(p.numel() for p in network.captured.module.parameters())
    export_onnx(with_plain_attention(shrunk), example, out)
    before, after = onnx.load(path).graph, onnx.load(out).graph
    assert [x.name for x in after.input] == [x.name for x in before.input]
    assert [x.name for x in after.output] == [x.name for x in before.output]
    with torch.no_grad():
        wanted = shrunk(*example)
        shrunk(*sample)  # what was open stays open
    for have, want in zip(run(out, *example), wanted, strict=True):
        np.testing.assert_allclose(have, want.numpy(), **CLOSE)
    return network


@pytest.mark.parametrize(("opset", "folded"), [(17, True), (11, False)])
def test_a_resnet_of_torch(tmp_path: Path, opset: int, folded: bool) -> None:
    torch.manual_seed(0)
    net, path = as_trained(ResNet()), tmp_path / "resnet.onnx"
    mode = torch.onnx.TrainingMode
    torch.onnx.export(
        net,
        (torch.randn(2, 3, 32, 32),),
        str(path),
        dynamo=False,
        opset_version=opset,
        training=mode.EVAL if folded else mode.PRESERVE,
        do_constant_folding=folded,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}},
    )
    model = load_onnx(path)
    assert model.inputs[0].shape == ("batch", 3, 32, 32)
    for batch in (1, 3):
        agree(model, path, torch.randn(batch, 3, 32, 32))
    example, sample = (torch.randn(1, 3, 32, 32),), (torch.randn(4, 3, 32, 32),)
    network = prune_and_write(path, example, sample, tmp_path / "out.onnx")
    direct = analyse(capture(net, example, sample))
    assert [s.units for s in network.structures.values()] == [
        s.units for s in direct.structures.values()
    ]
    assert network.summary().share_prunable == 1.0
    assert len(find_sites(network.captured.module)) == len(find_sites(direct.captured.module))
    if not folded:
        assert {name for name, _ in model.named_parameters()} == set(dict(net.named_parameters()))
        assert "layer1.0.bn1.running_var" in dict(model.named_buffers())


def keras_network() -> onnx.ModelProto:
    """As tf2onnx writes it: channels last outside, kernels that are transposed, SAME padding."""
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {}

    def stored(name: str, value: np.ndarray) -> str:
        constants[name] = value
        return name

    def add(operator: str, inputs: list[str], out: str, **attributes: object) -> str:
        name = f"StatefulPartitionedCall/model/{out}/{operator}"
        nodes.append(helper.make_node(operator, inputs, [out], name=name, **attributes))
        return out

    def convolution(x: str, before: int, channels: int, name: str, stride: int) -> str:
        kernel = stored(f"{name}/ReadVariableOp:0", 0.3 * numbers(3, 3, before, channels))
        bias = stored(f"{name}/BiasAdd:0", numbers(channels))
        shape = stored(f"{name}/shape", np.array([1, channels, 1, 1]))
        x = add(
            "Conv",
            [x, add("Transpose", [kernel], f"{name}_oihw", perm=[3, 2, 0, 1])],
            f"{name}_conv",
            auto_pad="SAME_UPPER",
            strides=[stride, stride],
        )
        x = add("Add", [x, add("Reshape", [bias, shape], f"{name}_b")], f"{name}_biased")
        scale, shift, mean = (numbers(channels, seed=seed) for seed in (1, 2, 3))
        statistics = [scale, shift, mean, 0.5 + np.abs(numbers(channels, seed=4))]
        kinds = ("gamma", "beta", "moving_mean", "moving_variance")
        named = [stored(f"{name}/{k}:0", v) for k, v in zip(kinds, statistics, strict=True)]
        x = add("BatchNormalization", [x, *named], f"{name}_norm", epsilon=1e-3)
        return add("Relu", [x], f"{name}_relu")

    x = add("Transpose", ["input_1:0"], "nchw", perm=[0, 3, 1, 2])
    x = convolution(convolution(x, 3, 8, "first", 2), 8, 16, "second", 2)
    x = add("Add", [x, convolution(x, 16, 16, "third", 1)], "sum")
    x = add("Transpose", [x], "nhwc", perm=[0, 2, 3, 1])
    x = add("ReduceMean", [x], "pool", axes=[1, 2], keepdims=0)
    x = add("MatMul", [x, stored("dense/kernel:0", numbers(16, 32))], "dense_product")
    x = add("Add", [stored("dense/bias:0", numbers(32)), x], "dense")
    x = add("Mul", [add("Sigmoid", [x], "gate"), x], "swish")
    x = add("MatMul", [x, stored("head/kernel:0", numbers(32, 5))], "head_product")
    add("Add", [x, stored("head/bias:0", numbers(5))], "Identity:0")
    shape = ["unk__1", 33, 33, 3]
    return graph_of(nodes, {"input_1:0": shape}, ["Identity:0"], constants, opset=13)


def test_a_network_of_keras(tmp_path: Path) -> None:
    path = tmp_path / "keras.onnx"
    onnx.save(keras_network(), path)
    model = load_onnx(path)
    agree(model, path, torch.randn(3, 33, 33, 3))
    example, sample = (torch.randn(1, 33, 33, 3),), (torch.randn(2, 33, 33, 3),)
    network = prune_and_write(path, example, sample, tmp_path / "out.onnx")
    assert sorted(s.units for s in network.structures.values()) == [8, 16, 32]
    operators = {str(node.target) for node in network.captured.module.graph.nodes}
    assert "aten.silu.default" in operators and "aten.linear.default" in operators
    assert "aten.matmul.default" not in operators
    biases = [n for n, p in model.named_parameters() if p.shape == (32,)]
    assert biases == ["dense.bias"]


@pytest.mark.parametrize(("opset", "attention"), [(14, "eager"), (17, "sdpa")])
def test_an_encoder_of_torch(tmp_path: Path, opset: int, attention: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=64,
        attn_implementation=attention,
    )

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = transformers.BertModel(config, add_pooling_layer=False)
            self.head = nn.Linear(48, 8)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask)[0]
            return self.head(hidden)

    def inputs(batch: int, length: int) -> tuple[Tensor, Tensor]:
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[0, length // 2 :] = 0
        return torch.randint(0, 60, (batch, length)), mask

    net, path = as_trained(Encoder()), tmp_path / "encoder.onnx"
    open_ = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        net,
        inputs(2, 7),
        str(path),
        dynamo=False,
        opset_version=opset,
        input_names=["input_ids", "attention_mask"],
        output_names=["embedding"],
        dynamic_axes={"input_ids": open_, "attention_mask": open_, "embedding": open_},
    )
    model = load_onnx(path)
    for batch, length in ((2, 7), (3, 11), (1, 2)):
        agree(model, path, *inputs(batch, length))
    example, sample = inputs(1, 8), inputs(3, 11)
    network = prune_and_write(path, example, sample, tmp_path / "out.onnx")
    direct = analyse(capture(net, example, sample))
    kinds = [(s.kind, s.units, s.removable) for s in network.structures.values()]
    assert sorted(kinds) == sorted(
        (s.kind, s.units, s.removable) for s in direct.structures.values()
    )
    assert network.summary().share_prunable == 1.0
    names = {node.name for node in network.captured.module.graph.nodes}
    assert any("layer_1_attention_self_query" in name for name in names)
    gelus = [n for n in network.captured.module.graph.nodes if "gelu" in str(n.target)]
    assert len(gelus) == 2

    if opset == 17:
        check_open(network, sample, inputs, tmp_path / "open.onnx")


def check_open(network: Network, sample: Any, inputs: Any, path: Path) -> None:
    """What goes out has the axes that came in, and is right at sizes that nobody mentioned."""
    pruned = network.shrink(half_of(network))
    assert export_open_onnx(pruned, sample, path) == ({0: "batch", 1: "sequence"},) * 2
    session = onnxruntime.InferenceSession(str(path))
    assert [port.name for port in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [port.shape for port in session.get_inputs()] == [["batch", "sequence"]] * 2
    assert [port.name for port in session.get_outputs()] == ["embedding"]
    for batch, length in ((1, 8), (4, 8), (1, 5), (4, 13)):
        tried = inputs(batch, length)
        feed = {"input_ids": tried[0].numpy(), "attention_mask": tried[1].numpy()}
        (have,) = session.run(None, feed)
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(have), pruned(*tried)[0])


def test_names_reach_the_artifact(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    path, out = tmp_path / "keras.onnx", tmp_path / "out.onnx"
    onnx.save(keras_network(), path)
    x = torch.randn(1, 33, 33, 3)
    network = analyse(capture(load_onnx(path), (x,)))
    export_onnx(network.shrink(half_of(network)), (x,), out)
    model = openvino.convert_model(str(out))
    assert model.inputs[0].get_names() == {"input_1:0"}
    assert model.outputs[0].get_names() == {"Identity:0"}

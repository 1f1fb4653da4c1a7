"""A layer of an exported model, replaced by a sparse node, computes what the masked layer does."""

from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
import torch
from kernel_reference import block_sparse
from torch import fx, nn

import edgeprune
from edgeprune.errors import InputError
from edgeprune.graph.capture import capture
from edgeprune.graph.onnx_export import export_onnx
from edgeprune.kernels import SparseLinear, pack
from edgeprune.kernels.onnx_rewrite import Replacement, put_sparse_layers


class Block(nn.Module):
    """A feed-forward block with a residual."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(24)
        self.up, self.down = nn.Linear(24, 48), nn.Linear(48, 24, bias=False)
        self.activation = activation
        rng = np.random.default_rng(0)
        for layer in (self.up, self.down):
            mask = block_sparse(rng, layer.out_features, layer.in_features, (4, 1), 0.6) != 0
            layer.weight.data *= torch.from_numpy(mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.activation(self.up(self.norm(x))))


def exported(block: Block, x: torch.Tensor, path: Path) -> tuple[onnx.ModelProto, fx.Graph]:
    module = capture(block.eval(), (x,)).module
    export_onnx(module, (x,), path)
    return onnx.load(path), module.graph


def scopes(graph: fx.Graph, text: str) -> list[str]:
    return [node.name for node in graph.nodes if text in str(node.target)]


@pytest.mark.parametrize(
    ("activation", "name"), [(nn.GELU(), "gelu"), (nn.ReLU(), "relu"), (nn.SiLU(), "silu")]
)
@pytest.mark.parametrize("shape", [(1, 7, 24), (5, 24)])
@pytest.mark.parametrize("together", [False, True])
def test_replaced_layers_compute_the_same(
    activation: nn.Module, name: str, shape: tuple[int, ...], together: bool, tmp_path: Path
) -> None:
    block = Block(activation)
    x = torch.randn(shape)
    model, graph = exported(block, x, tmp_path / "block.onnx")
    up, down = scopes(graph, "linear")
    (behind,) = scopes(graph, name)
    zeros = np.zeros(24, np.float32)
    first = SparseLinear(pack(block.up.weight), block.up.bias.detach().numpy(), name)
    second = SparseLinear(pack(block.down.weight), zeros)
    layers = [Replacement((up, behind), (first,)), Replacement((down,), (second,))]
    if together:
        layers = [Replacement((up, behind, down), (first, second))]
    put_sparse_layers(model, layers)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("SparseLinear") == len(layers)
    assert not {"MatMul", "Gemm", "Erf", "Relu", "Sigmoid"} & set(kinds)
    onnx.save(model, tmp_path / "sparse.onnx")
    assert (tmp_path / "sparse.onnx").stat().st_size < (tmp_path / "block.onnx").stat().st_size
    core = ov.Core()
    core.add_extension(str(edgeprune.openvino_extension()))
    found = core.compile_model(tmp_path / "sparse.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(found(x.numpy())[0], block(x).detach().numpy(), atol=1e-5)


def test_a_layer_that_is_not_there_is_named(tmp_path: Path) -> None:
    block = Block(nn.ReLU())
    model, _ = exported(block, torch.randn(2, 24), tmp_path / "block.onnx")
    layer = SparseLinear(pack(block.up.weight), np.zeros(48, np.float32))
    with pytest.raises(InputError, match="no nodes of layer linear_9"):
        put_sparse_layers(model, [Replacement(("linear_9",), (layer,))])


def test_an_activation_that_is_read_twice_cannot_be_swallowed(tmp_path: Path) -> None:
    class Twice(Block):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.up(x)
            return self.down(torch.relu(hidden) * hidden)

    block = Twice(nn.ReLU())
    model, graph = exported(block, torch.randn(2, 24), tmp_path / "block.onnx")
    up, _ = scopes(graph, "linear")
    (behind,) = scopes(graph, "relu")
    layer = SparseLinear(pack(block.up.weight), np.zeros(48, np.float32), "relu")
    with pytest.raises(InputError, match="makes 2 in the ONNX graph"):
        put_sparse_layers(model, [Replacement((up, behind), (layer,))])

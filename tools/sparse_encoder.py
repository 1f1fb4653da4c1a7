"""An encoder with random block-sparse weights, for benchmarks: as a module and as ONNX files."""

from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, fx, nn

from edgeprune.deployment import sparse_layers
from edgeprune.formats import Format
from edgeprune.graph.capture import capture
from edgeprune.graph.layers import weighted_layers
from edgeprune.graph.onnx_attention import with_plain_attention
from edgeprune.graph.onnx_export import export_onnx
from edgeprune.kernels.onnx_rewrite import put_sparse_layers

SEQUENCE = 128
# Layers, width, heads, neurons of a feed-forward block.
SIZES = {"minilm": (6, 384, 12, 1536), "768-wide": (6, 768, 12, 3072)}


class Layer(nn.Module):
    """Attention and a feed-forward block, normalised behind each as BERT does it."""

    def __init__(self, width: int, heads: int, neurons: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, neurons), nn.Linear(neurons, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, sequence, width) in and out."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        x = self.norms[0](x + self.out(mixed.transpose(1, 2).flatten(2)))
        return torch.as_tensor(self.norms[1](x + self.down(nn.functional.gelu(self.up(x)))))


def encoder(size: str, block: tuple[int, int], sparsity: float) -> nn.Sequential:
    """With that share of the blocks of every linear layer zero."""
    torch.manual_seed(0)
    layers, width, heads, neurons = SIZES[size]
    network = nn.Sequential(*(Layer(width, heads, neurons) for _ in range(layers)))
    for linear in linear_layers(network):
        mask_blocks(linear.weight.data, block, sparsity)
    return network.eval()


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    """All of them, in order."""
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


def mask_blocks(weight: Tensor, block: tuple[int, int], sparsity: float) -> None:
    """Set that share of each group of outputs' blocks to zero, in place."""
    rows, depth = block
    places = torch.rand(weight.shape[0] // rows, weight.shape[1] // depth).argsort(1)
    alive = places >= round(sparsity * (weight.shape[1] // depth))
    weight *= alive.repeat_interleave(rows, 0).repeat_interleave(depth, 1)


def example(size: str) -> Tensor:
    """An input of batch one."""
    return torch.randn(1, SEQUENCE, SIZES[size][1], generator=torch.Generator().manual_seed(1))


def dense_onnx(network: nn.Module, x: Tensor, path: Path) -> fx.GraphModule:
    """Write the network, zeros and all; gives the graph that it was written from."""
    module = with_plain_attention(capture(network, (x,)).module)
    export_onnx(module, (x,), path)
    return module


def sparse_onnx(
    dense: Path, module: fx.GraphModule, kind: tuple[Any, tuple[int, int]], path: Path
) -> Path:
    """Write it once more with packed weights of a precision and block."""
    model = onnx.load(dense)
    formats = dict.fromkeys(weighted_layers(module), Format(*kind))
    put_sparse_layers(model, sparse_layers(module, formats))
    onnx.save(model, path)
    return path


class SparseTensorLinear(nn.Module):
    """A linear layer whose weight is one of torch's own sparse tensors."""

    def __init__(self, linear: nn.Linear, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, sequence, inputs) in, (batch, sequence, outputs) out."""
        rows = x.flatten(0, -2)
        return (self.weight @ rows.T).T.reshape(*x.shape[:-1], -1) + self.bias


def with_torch_sparse(network: nn.Sequential, layout: str, block: tuple[int, int]) -> nn.Sequential:
    """The network with torch's CSR or BSR weights, in place."""
    for layer in network.modules():
        for name, child in list(layer.named_children()):
            if isinstance(child, nn.Linear):
                weight = child.weight.detach()
                sparse = weight.to_sparse_csr() if layout == "csr" else weight.to_sparse_bsr(block)
                setattr(layer, name, SparseTensorLinear(child, sparse))
    return network

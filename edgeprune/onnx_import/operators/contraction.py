"""Products: linear layers with a stored matrix, and products of two values."""

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeprune.onnx_import.registry import MICROSOFT, OWN, Call, operator
from edgeprune.onnx_import.types import as_type


@operator("Linear", domain=OWN, weights=(1, 2))
def linear(c: Call) -> Tensor:
    """``x W^T + b`` with a stored matrix (out, in)."""
    return F.linear(c.tensor(0), c.tensor(1), c.optional(2))


@operator("MatMul", weights=(0, 1))
def matmul(c: Call) -> Tensor:
    """A product under broadcasting."""
    return torch.matmul(c.tensor(0), c.tensor(1))


@operator("Gemm", weights=(0, 1, 2))
def gemm(c: Call) -> Tensor:
    """``alpha A B + beta C``, either operand transposed."""
    a, b = c.tensor(0), c.tensor(1)
    a = a.t() if c.attribute("transA", 0) else a
    b = b.t() if c.attribute("transB", 0) else b
    product = torch.matmul(a, b)
    alpha, beta = c.attribute("alpha", 1.0), c.attribute("beta", 1.0)
    product = product if alpha == 1.0 else as_type(product * alpha, product.dtype)
    if not c.has(2):
        return product
    added = c.tensor(2)
    return product + (added if beta == 1.0 else as_type(added * beta, added.dtype))


@operator("Einsum", weights=(0, 1))
def einsum(c: Call) -> Tensor:
    """Products in Einstein's notation."""
    equation = c.attribute("equation").replace(" ", "")
    operands = [c.tensor(i) for i in range(len(c.inputs))]
    return torch.einsum(equation, *operands)


@operator("FusedMatMul", domain=MICROSOFT, weights=(0, 1))
def fused_matmul(c: Call) -> Tensor:
    """A scaled product, the last two dimensions of either operand swapped."""
    if c.attribute("transBatchA", 0) or c.attribute("transBatchB", 0):
        c.fail("transposes batch dimensions, which cannot be captured; export without fusion")
    a, b = c.tensor(0), c.tensor(1)
    a = a.transpose(-1, -2) if c.attribute("transA", 0) else a
    b = b.transpose(-1, -2) if c.attribute("transB", 0) else b
    alpha = c.attribute("alpha", 1.0)
    product = torch.matmul(a, b)
    return product if alpha == 1.0 else product * alpha

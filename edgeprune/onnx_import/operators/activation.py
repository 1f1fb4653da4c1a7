"""Activations, and softmax in its two definitions."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeprune.onnx_import.registry import OWN, Call, operator

# Since this version softmax runs along one dimension; before, over all from there on.
_ALONG_ONE = 13


def _register(name: str, function: Callable[[Tensor], Tensor], domain: str = "") -> None:
    operator(name, domain=domain)(lambda c: function(c.tensor(0)))


_register("Relu", torch.relu)
_register("Softplus", F.softplus)
_register("Softsign", F.softsign)
_register("HardSwish", F.hardswish)
_register("Mish", F.mish)
_register("Gelu", F.gelu, OWN)
_register("TanhGelu", lambda x: F.gelu(x, approximate="tanh"), OWN)
_register("Silu", F.silu, OWN)
_register("HardSwish", F.hardswish, OWN)
_register("Mish", F.mish, OWN)


@operator("Gelu")
def gelu(c: Call) -> Tensor:
    """Exact, or by a hyperbolic tangent."""
    return F.gelu(c.tensor(0), approximate=c.attribute("approximate", "none"))


@operator("Swish")
def swish(c: Call) -> Tensor:
    """``x sigmoid(alpha x)``."""
    x, alpha = c.tensor(0), c.attribute("alpha", 1.0)
    return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


@operator("LeakyRelu")
def leaky_relu(c: Call) -> Tensor:
    """A slope below zero."""
    return F.leaky_relu(c.tensor(0), c.attribute("alpha", 0.01))


@operator("PRelu", weights=(1,))
def prelu(c: Call) -> Tensor:
    """A learned slope below zero; for each channel it is torch's own."""
    x, slope = c.tensor(0), c.tensor(1)
    channelwise = x.dim() > 1 and slope.numel() in (1, x.shape[1])
    places = slope.dim() <= 1 and slope.numel() == 1
    places = places or (slope.dim() == x.dim() - 1 and slope.shape[0] == slope.numel())
    if channelwise and places:
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x < 0, x * slope, x)


@operator("Elu")
def elu(c: Call) -> Tensor:
    """Exponential below zero."""
    return F.elu(c.tensor(0), c.attribute("alpha", 1.0))


@operator("Celu")
def celu(c: Call) -> Tensor:
    """Smooth at zero for any slope."""
    return F.celu(c.tensor(0), c.attribute("alpha", 1.0))


@operator("Selu")
def selu(c: Call) -> Tensor:
    """A scaled ELU; other constants than torch's are written out."""
    x = c.tensor(0)
    alpha = c.attribute("alpha", 1.6732632423543772)
    gamma = c.attribute("gamma", 1.0507009873554805)
    if abs(alpha - 1.6732632) < 1e-6 and abs(gamma - 1.0507010) < 1e-6:
        return F.selu(x)
    scaled: Tensor = gamma * F.elu(x, alpha)
    return scaled


@operator("ThresholdedRelu")
def thresholded_relu(c: Call) -> Tensor:
    """Zero up to a threshold."""
    return F.threshold(c.tensor(0), c.attribute("alpha", 1.0), 0.0)


@operator("HardSigmoid")
def hard_sigmoid(c: Call) -> Tensor:
    """torch's own where the slope is a sixth."""
    x, alpha, beta = c.tensor(0), c.attribute("alpha", 0.2), c.attribute("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


@operator("Shrink")
def shrink(c: Call) -> Tensor:
    """Zero around zero, moved by a bias elsewhere."""
    x, edge, bias = c.tensor(0), c.attribute("lambd", 0.5), c.attribute("bias", 0.0)
    zeros = torch.zeros_like(x)
    return torch.where(x < -edge, x + bias, torch.where(x > edge, x - bias, zeros))


@operator("Softmax")
def softmax(c: Call) -> Tensor:
    """Probabilities along a dimension."""
    return _along(c, lambda x, dim: torch.softmax(x, dim))


@operator("LogSoftmax")
def log_softmax(c: Call) -> Tensor:
    """Their logarithms."""
    return _along(c, lambda x, dim: torch.log_softmax(x, dim))


@operator("Hardmax")
def hardmax(c: Call) -> Tensor:
    """One at the first of the largest entries."""

    def first(x: Tensor, dim: int) -> Tensor:
        zeros = torch.zeros_like(x)
        return zeros.scatter(dim, x.argmax(dim, keepdim=True), 1.0)

    return _along(c, first)


def _along(c: Call, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    x = c.tensor(0)
    axis = c.attribute("axis", -1 if c.opset >= _ALONG_ONE else 1)
    axis = axis % x.dim() if x.dim() else 0
    if c.opset >= _ALONG_ONE or axis == x.dim() - 1:
        return function(x, axis)
    return function(x.flatten(axis), axis).reshape(x.shape)

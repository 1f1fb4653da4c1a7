"""Operators that ONNX Runtime's own optimiser makes of several."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from edgeprune.onnx_import.operators.normalisation import layer_normalization, rms_normalization
from edgeprune.onnx_import.registry import MICROSOFT, Call, operator

operator("LayerNormalization", domain=MICROSOFT, weights=(1, 2))(layer_normalization)
operator("SimplifiedLayerNormalization", domain=MICROSOFT, weights=(1,))(rms_normalization)


@operator("Gelu", domain=MICROSOFT)
def gelu(c: Call) -> Tensor:
    """The exact one."""
    return F.gelu(c.tensor(0))


@operator("BiasGelu", domain=MICROSOFT, weights=(1,))
def bias_gelu(c: Call) -> Tensor:
    """The exact one of a sum with a vector."""
    return F.gelu(c.tensor(0) + c.tensor(1))


@operator("FastGelu", domain=MICROSOFT, weights=(1,))
def fast_gelu(c: Call) -> Tensor:
    """By a hyperbolic tangent, of a sum with a vector where one is given."""
    x = c.tensor(0)
    return F.gelu(x + c.tensor(1) if c.has(1) else x, approximate="tanh")


@operator("QuickGelu", domain=MICROSOFT)
def quick_gelu(c: Call) -> Tensor:
    """``x sigmoid(alpha x)``."""
    x = c.tensor(0)
    alpha: float = c.attribute("alpha", 1.702)
    return x * (x * alpha).sigmoid()


@operator("SkipLayerNormalization", domain=MICROSOFT, weights=(2, 3, 4))
def skip_layer_normalization(c: Call) -> tuple[Any, ...]:
    """Of a sum of two values and a vector; the sum may be asked for, too."""
    x = c.tensor(0) + c.tensor(1)
    x = x + c.tensor(4) if c.has(4) else x
    epsilon, weight = c.attribute("epsilon", 1e-12), c.tensor(2)
    return F.layer_norm(x, tuple(weight.shape), weight, c.optional(3), epsilon), None, None, x


@operator("SkipSimplifiedLayerNormalization", domain=MICROSOFT, weights=(2, 3))
def skip_rms_normalization(c: Call) -> tuple[Any, ...]:
    """The same by the root of the mean square."""
    x = c.tensor(0) + c.tensor(1)
    x = x + c.tensor(3) if c.has(3) else x
    epsilon, weight = c.attribute("epsilon", 1e-12), c.tensor(2)
    return F.rms_norm(x, tuple(weight.shape), weight, epsilon), None, None, x

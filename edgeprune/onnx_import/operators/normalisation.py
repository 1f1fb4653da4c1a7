"""Normalisations."""

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeprune.onnx_import.registry import Call, operator

_EPSILON = 1e-5


@operator("BatchNormalization", weights=(1, 2), buffers=(3, 4))
def batch_normalization(c: Call) -> Tensor:
    """With stored statistics."""
    if c.attribute("training_mode", 0) or not c.attribute("spatial", 1):
        c.fail("takes statistics of its input; export the model in eval mode")
    mean, variance = c.tensor(3), c.tensor(4)
    epsilon = c.attribute("epsilon", _EPSILON)
    return F.batch_norm(c.tensor(0), mean, variance, c.tensor(1), c.tensor(2), False, 0.1, epsilon)


@operator("InstanceNormalization", weights=(1, 2))
def instance_normalization(c: Call) -> Tensor:
    """Over the positions of each channel."""
    epsilon = c.attribute("epsilon", _EPSILON)
    return F.instance_norm(c.tensor(0), weight=c.tensor(1), bias=c.tensor(2), eps=epsilon)


@operator("LayerNormalization", weights=(1, 2))
def layer_normalization(c: Call) -> tuple[Tensor | None, ...]:
    """Over all dimensions from one on; its statistics may be asked for, too."""
    x, weight, bias = c.tensor(0), c.tensor(1), c.optional(2)
    axis = c.attribute("axis", -1) % x.dim()
    shape = x.shape[axis:]
    if weight.shape != shape:
        weight = weight.expand(shape)
    if bias is not None and bias.shape != shape:
        bias = bias.expand(shape)
    epsilon = c.attribute("epsilon", _EPSILON)
    made = F.layer_norm(x, tuple(shape), weight, bias, epsilon)
    if not any(c.node.outputs[1:]):
        return (made,)
    dims = list(range(axis, x.dim()))
    mean = x.mean(dims, keepdim=True)
    variance = (x - mean).square().mean(dims, keepdim=True)
    return made, mean, (variance + epsilon).rsqrt()


@operator("SimplifiedLayerNormalization", "RMSNormalization", weights=(1,))
def rms_normalization(c: Call) -> Tensor:
    """By the root of the mean square over all dimensions from one on."""
    x = c.tensor(0)
    axis = c.attribute("axis", -1) % x.dim()
    shape, epsilon = tuple(x.shape[axis:]), c.attribute("epsilon", _EPSILON)
    weight = c.tensor(1)
    return F.rms_norm(x, shape, weight.expand(shape), epsilon)


@operator("GroupNormalization", weights=(1, 2))
def group_normalization(c: Call) -> Tensor:
    """A scale for each group in opset 18, for each channel since 21."""
    x, weight, bias = c.tensor(0), c.tensor(1), c.tensor(2)
    groups, epsilon = c.attribute("num_groups"), c.attribute("epsilon", _EPSILON)
    if weight.shape[0] == x.shape[1]:
        return F.group_norm(x, groups, weight, bias, epsilon)
    each = x.shape[1] // groups
    weight, bias = weight.repeat_interleave(each), bias.repeat_interleave(each)
    return F.group_norm(x, groups, weight, bias, epsilon)


@operator("LRN")
def local_response_normalization(c: Call) -> Tensor:
    """By the squares of neighbouring channels."""
    size = c.attribute("size")
    alpha, beta = c.attribute("alpha", 1e-4), c.attribute("beta", 0.75)
    x = c.tensor(0)
    squares = F.pad(x.square().flatten(2).unsqueeze(1), (0, 0, (size - 1) // 2, size // 2))
    sums = F.avg_pool2d(squares, (size, 1), stride=1) * size
    scale = (c.attribute("bias", 1.0) + alpha / size * sums).pow(beta)
    normal: Tensor = x / scale.squeeze(1).reshape(x.shape)
    return normal


@operator("LpNormalization")
def lp_normalization(c: Call) -> Tensor:
    """To length one along a dimension; zero stays zero."""
    x, axis = c.tensor(0), c.attribute("axis", -1)
    norm = torch.linalg.vector_norm(x, float(c.attribute("p", 2)), [axis], keepdim=True)
    normal: Tensor = x / norm.clamp_min(1e-12)
    return normal


@operator("MeanVarianceNormalization")
def mean_variance_normalization(c: Call) -> Tensor:
    """To zero mean and unit deviation."""
    x, axes = c.tensor(0), list(c.attribute("axes", [0, 2, 3]))
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)

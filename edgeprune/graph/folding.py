"""BatchNorm folded into the convolution that it alone reads."""

from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.utils.fusion import fuse_conv_bn_weights

from edgeprune.graph.ops import argument, op_name


def norm_behind(convolution: fx.Node) -> fx.Node | None:
    """The BatchNorm that alone reads a convolution and knows its statistics, if there is one."""
    if len(convolution.users) != 1:
        return None
    norm = next(iter(convolution.users))
    own = norm.op == "call_function" and op_name(norm) == "batch_norm"
    stored = own and all(_stored(argument) for argument in norm.args[3:5])
    return norm if stored and norm.args[0] is convolution else None


@torch.no_grad()
def folded(
    module: fx.GraphModule, weight: Tensor, bias: Tensor | None, norm: fx.Node
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does what ``norm`` does behind it, too."""
    scale, shift, mean, variance = (_read(module, argument) for argument in norm.args[1:5])
    epsilon = argument(norm, 7, "eps")
    return fuse_conv_bn_weights(weight, bias, mean, variance, float(epsilon), scale, shift)


def _stored(argument: Any) -> bool:
    return isinstance(argument, fx.Node) and argument.op == "get_attr"


def _read(module: fx.GraphModule, argument: Any) -> Any:
    return attrgetter(str(argument.target))(module) if _stored(argument) else None

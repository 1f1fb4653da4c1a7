"""Residual sums of which one summand is a constant, since its branch has been emptied.

Such a constant is an offset that a refit can solve for; and where nothing else uses what lies
between, the layer in front can be fitted to what the dense model has *behind* the emptied block.
"""

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgeprune.compression.executor import Executor
from edgeprune.graph.ops import is_constant

aten = torch.ops.aten
ADD = {aten.add.Tensor, aten.add_.Tensor}
_RESHAPING = {aten.reshape.default, aten.view.default, aten.expand.default}


@dataclass(frozen=True)
class EmptiedSum:
    """The sum of a value and a constant.

    Attributes:
        node: The sum.
        value: The summand that is computed.
        branch: The constant summand.
        offset: Name of a parameter, used nowhere else, that shifts the branch per channel.
        dim: The channels' dimension, counted from the last one: -1 is the last.
    """

    node: fx.Node
    value: fx.Node
    branch: fx.Node
    offset: str
    dim: int

    def branch_value(self, executor: Executor) -> Tensor:
        """What the branch adds, per channel."""
        value = _evaluate(executor, self.branch)
        width = executor.parameter(self.offset).numel()
        if value.dim() < -self.dim or value.shape[self.dim] != width:
            return torch.full((width,), float(value.flatten()[0]))
        return value.movedim(self.dim, -1).reshape(-1, width)[0].clone()

    @torch.no_grad()
    def shift(self, executor: Executor, by: Tensor) -> None:
        """Add a value per channel to what the branch adds."""
        parameter = executor.parameter(self.offset)
        parameter.add_(by.reshape(parameter.shape).to(parameter.dtype))

    def mean(self, value: Tensor) -> Tensor:
        """Mean over all dimensions but the channels'."""
        return value.movedim(self.dim, -1).flatten(0, -2).mean(0)


def emptied_sum(node: fx.Node) -> EmptiedSum | None:
    """The sum that ``node`` is, if it adds a constant whose offset can be set."""
    if node.target not in ADD or node.kwargs.get("alpha", 1) != 1:
        return None
    left, right = node.args[:2]
    if not isinstance(left, fx.Node) or not isinstance(right, fx.Node):
        return None
    constant = [summand for summand in (left, right) if is_constant(summand)]
    if len(constant) != 1 or left is right:
        return None
    found = _offset(constant[0])
    value = right if constant[0] is left else left
    return None if found is None else EmptiedSum(node, value, constant[0], *found)


def _offset(branch: fx.Node) -> tuple[str, int] | None:
    """The parameter that shifts a constant branch, and the dimension it runs along."""
    node, shape = branch, None
    while node.target in _RESHAPING and len(node.users) == 1:
        if node.target is not aten.expand.default and shape is None:
            shape = node.args[1]
        node = node.args[0]  # type: ignore[assignment]
    if node.target is aten.batch_norm.default and not node.args[5] and shape is None:
        bias, rank = node.args[2], _rank(node)
        alone = isinstance(bias, fx.Node) and len(bias.users) == len(node.users) == 1
        return (str(bias.target), 1 - rank) if alone and rank else None  # type: ignore[union-attr]
    if node.op != "get_attr" or len(node.users) != 1:
        return None
    sizes: Any = _parameter_shape(node) if shape is None else shape
    wide = [index for index, size in enumerate(sizes) if size != 1]
    return (str(node.target), wide[0] - len(sizes)) if len(wide) == 1 else None


def _parameter_shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(operator.attrgetter(str(node.target))(node.graph.owning_module).shape)


def _rank(node: fx.Node) -> int:
    source = node.args[0]
    if isinstance(source, fx.Node) and source.op == "get_attr":
        return len(_parameter_shape(source))
    value = node.meta.get("val")
    return value.dim() if isinstance(value, Tensor) else 0


def _evaluate(executor: Executor, node: fx.Node) -> Tensor:
    if node.op == "get_attr":
        return executor.parameter(str(node.target))
    arguments = fx.map_arg(node.args, lambda source: _evaluate(executor, source))
    keywords = fx.map_arg(node.kwargs, lambda source: _evaluate(executor, source))
    return node.target(*arguments, **keywords)  # type: ignore[operator,no-any-return]

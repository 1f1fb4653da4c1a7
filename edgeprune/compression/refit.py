"""Sequential least-squares refit of a shrunk network to the dense one, without labels.

Layers are visited in execution order on the *shrunk* network's own activations; each is solved
in closed form for the dense value that its output should have, so errors made earlier are
repaired where they can be (the reconstruction step of He et al., 2017, "Channel pruning for
accelerating very deep neural networks", eq. 5, applied to residual sums).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, fx

from edgeprune.compression import least_squares
from edgeprune.compression.emptied import EmptiedSum, emptied_sum
from edgeprune.compression.executor import Environment, Executor, Values
from edgeprune.compression.landing import Landing, affine, landing, rectified, residual_sums
from edgeprune.compression.sparsify import Sparsify, carefully
from edgeprune.formats import ALL_DENSE, Format, Formats
from edgeprune.graph.layers import WeightedLayer, weighted_layers

# The positions of an output dimension that survive: (tensor, dim) -> indices, or None for all.
Survivors = Callable[[str, int], Tensor | None]
Scope = Literal["landing", "all", "none"]
_SMALLEST_SCALE = 1e-6
# Positions of a convolution that a refit uses for each of a kernel's weights, at least, and the
# widest spacing between them.
_ROWS_PER_COLUMN, _WIDEST = 32, 2


class Targets(Protocol):
    """Where the dense model's values come from.

    Attributes:
        sums: Names of its residual sums.
    """

    sums: frozenset[str]

    def take(self, node: str) -> Values:
        """The dense values at a node, a list over batches."""


class CachedTargets:
    """Dense values of all residual sums in memory: for few batches that many candidates share."""

    def __init__(self, module: fx.GraphModule, batches: Sequence[tuple[Tensor, ...]]) -> None:
        self._values: dict[str, Values] = {}
        self.sums = wanted = residual_sums(module)

        def after(node: fx.Node, environment: Environment) -> None:
            if node.name in wanted:
                self._values[node.name] = environment[node]

        Executor(module, batches).run(after=after)

    def take(self, node: str) -> Values:
        """The dense values at a node, a list over batches."""
        return self._values[node]


class NoTargets:
    """For networks that get the zeros of their formats and no refit."""

    sums: frozenset[str] = frozenset()

    def take(self, node: str) -> Values:
        """Nothing is fitted, so that nothing is asked for."""
        raise LookupError(node)


class LockstepTargets:
    """Dense values computed as they are asked for and then forgotten: for many batches.

    The dense model runs beside the shrunk one, never further ahead than the next landing.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        batches: Sequence[tuple[Tensor, ...]],
        shrunk: fx.GraphModule,
        scope: Scope,
    ) -> None:
        self._executor = Executor(module, batches)
        self._environment: Environment = {}
        self._next = 0
        self.sums = residual_sums(module)
        layers = refit_layers(shrunk, scope, self.sums).values()
        self._wanted = {target.target.name for _, target in layers}
        self._wanted |= {total.node.name for total in emptied_sums(shrunk, layers, self.sums)}
        self._ready: dict[str, Values] = {}

    def take(self, node: str) -> Values:
        """The dense values at a node, a list over batches; each node can be taken once."""
        while node not in self._ready:
            self._executor.advance(self._environment, self._next, self._next + 1, after=self._keep)
            self._next += 1
        return self._ready.pop(node)

    def _keep(self, node: fx.Node, environment: Environment) -> None:
        if node.name in self._wanted:
            self._ready[node.name] = environment[node]


Layers = dict[str, tuple[WeightedLayer, Landing]]


def refit_layers(module: fx.GraphModule, scope: Scope, sums: frozenset[str]) -> Layers:
    """The layers to refit by name in order: those on residual sums, or every one, or none.

    Layers that land nowhere else are fitted to their own dense output.
    """
    order = {node: index for index, node in enumerate(module.graph.nodes)}
    found: Layers = {}
    if scope == "none":
        return found
    for name, layer in weighted_layers(module).items():
        target = landing(layer, sums)
        # A summand computed later than the layer cannot be taken off the sum yet; the layer
        # that computes it is fitted in its turn.
        ready = target.shortcut is None or order[target.shortcut] < order[layer.node]
        if ready and (scope == "all" or target.shortcut is not None or target.passed):
            found[name] = (layer, target)
    return found


def emptied_sums(
    module: fx.GraphModule,
    layers: Iterable[tuple[WeightedLayer, Landing]],
    sums: frozenset[str],
) -> list[EmptiedSum]:
    """The emptied sums whose constant is to be fitted, since no layer in front stands in."""
    passed = {total.node for _, target in layers for total in target.passed}
    found = (emptied_sum(node) for node in module.graph.nodes if node.name in sums)
    return [
        total
        for total in found
        # Before a ReLU the mean of a sum says little of what passes.
        if total is not None and total.node not in passed and not rectified(total.node)
    ]


@torch.no_grad()
def refit(
    module: fx.GraphModule,
    batches: Sequence[tuple[Tensor, ...]],
    targets: Targets,
    survivors: Survivors,
    dampings: Sequence[float],
    scope: Scope = "landing",
    progress: Callable[[int, int], None] | None = None,
    *,
    formats: Formats = ALL_DENSE,
    sparsify: Sparsify = carefully,
) -> list[tuple[Tensor, ...]]:
    """Refit ``module`` in place and return its outputs on the batches after the refit.

    Args:
        module: The shrunk graph; its layers' weights, biases and the biases of batch
            normalisations behind them are overwritten.
        batches: What to fit on.
        targets: Dense values on the same batches.
        survivors: Which positions of a weight's output dimension the shrunk graph kept.
        dampings: Ridges towards the present weights, relative to the inputs' mean variance; each
            layer takes the one that does best on batches left out.
        scope: Refit the layers on residual sums alone, or every layer.
        progress: Called with the layers done, and their number.
        formats: Layers with a sparse format get its zeros in their turn, fitted to the inputs
            that the layers before leave them.
        sparsify: Chooses which blocks are zero.
    """
    sparse = {
        name: layer
        for name, layer in weighted_layers(module).items()
        if name in formats and formats[name].sparse
    }
    layers = refit_layers(module, scope, targets.sums)
    emptied = emptied_sums(module, layers.values(), targets.sums)
    constants = {total.node.name: total for total in emptied}
    executor = Executor(module, batches)
    done = 0

    def before(node: fx.Node, environment: Environment) -> None:
        nonlocal done
        if node.name in constants:
            _fit_constant(executor, environment, constants[node.name], targets, survivors)
        if node.name not in layers:
            if node.name in sparse:
                _thin(executor, environment, sparse[node.name], formats[node.name], sparsify)
            return
        layer, target = layers[node.name]
        dense = targets.take(target.target.name)
        for total in target.passed:
            total.shift(executor, -total.branch_value(executor))
        solution = _fit(executor, environment, layer, target, dense, survivors, dampings)
        if node.name in sparse:
            moments = solution.gram, solution.mean
            _thin_to(executor, layer, target, moments, formats[node.name], sparsify)
        done += 1
        if progress is not None:
            progress(done, len(layers))

    return executor.run(before=before)


def _fit(
    executor: Executor,
    environment: Environment,
    layer: WeightedLayer,
    target: Landing,
    dense: Values,
    survivors: Survivors,
    dampings: Sequence[float],
) -> least_squares.Solution:
    weight = executor.parameter(layer.weight)
    scale, shift = affine(executor, target.norm, len(weight))
    kept = survivors(layer.weight, 0)
    bias = None if layer.bias is None else executor.parameter(layer.bias)
    matrix = weight.flatten(1) * scale[:, None]
    offset = shift if bias is None else shift + bias * scale
    inputs = executor.input_values(layer.node, environment)
    shortcut = environment[target.shortcut] if target.shortcut is not None else None

    every = _spacing(layer, weight, dense)

    def rows(index: int) -> tuple[Tensor, Tensor]:
        x = layer.rows(inputs[index], weight, every)
        wanted = dense[index]
        if kept is not None:
            wanted = wanted.index_select(1 if layer.convolution else -1, kept)
        if shortcut is not None:
            wanted = wanted - shortcut[index]
        return x, layer.flatten_output(wanted, every) - x @ matrix.T - offset

    solution = least_squares.solve(rows, len(inputs), dampings)
    usable = scale.abs() > _SMALLEST_SCALE
    step = torch.where(usable[:, None], solution.change, 0)
    weight.add_((step / torch.where(usable, scale, 1)[:, None]).reshape(weight.shape))
    _add_offset(executor, layer, target, solution.intercept, scale, usable)
    return solution


def _thin(
    executor: Executor,
    environment: Environment,
    layer: WeightedLayer,
    format_: Format,
    sparsify: Sparsify,
) -> None:
    """Give a layer that is not refitted its zeros."""
    weight = executor.parameter(layer.weight)
    inputs = executor.input_values(layer.node, environment)
    moments = least_squares.input_moments(layer.rows(value, weight) for value in inputs)
    target = landing(layer, frozenset())
    _thin_to(executor, layer, target, moments, format_, sparsify)


def _thin_to(
    executor: Executor,
    layer: WeightedLayer,
    target: Landing,
    moments: tuple[Tensor, Tensor],
    format_: Format,
    sparsify: Sparsify,
) -> None:
    """Zeros for a layer's weight; its mean output stays where there is a bias to keep it."""
    weight = executor.parameter(layer.weight)
    scale, _ = affine(executor, target.norm, len(weight))
    usable = scale.abs() > _SMALLEST_SCALE
    gram, mean = moments
    if target.norm is None and layer.bias is None:
        gram = gram + torch.outer(mean, mean)
    matrix = weight.flatten(1) * torch.where(usable, scale, 0)[:, None]
    thinned = sparsify(matrix, gram, format_)
    lost = ((matrix - thinned).double() @ mean).float()
    weight.copy_((thinned / torch.where(usable, scale, 1)[:, None]).reshape(weight.shape))
    _add_offset(executor, layer, target, lost, scale, usable)


def _spacing(layer: WeightedLayer, weight: Tensor, dense: Values) -> int:
    """The spacing of positions that still leaves many of them for each of a kernel's weights.

    Neighbouring positions of an image say much the same.
    """
    if not layer.convolution:
        return 1
    axes = weight.dim() - 2
    rows = sum(value.shape[0] * value[0, 0].numel() for value in dense)
    wanted = _ROWS_PER_COLUMN * weight[0].numel()
    every = 1
    while every < _WIDEST and rows / (2 * every) ** axes >= wanted:
        every *= 2
    return every


def _fit_constant(
    executor: Executor,
    environment: Environment,
    total: EmptiedSum,
    targets: Targets,
    survivors: Survivors,
) -> None:
    """Set the constant of an emptied sum to what the dense sum is above its shortcut on average."""
    dense = targets.take(total.node.name)
    kept = survivors(total.offset, 0)
    above = torch.zeros(())
    for index, value in enumerate(environment[total.value]):
        wanted = dense[index]
        if kept is not None:
            wanted = wanted.index_select(total.dim, kept)
        above = above + total.mean(wanted - value)
    total.shift(executor, above / len(dense) - total.branch_value(executor))


def _add_offset(
    executor: Executor,
    layer: WeightedLayer,
    target: Landing,
    intercept: Tensor,
    scale: Tensor,
    usable: Tensor,
) -> None:
    """Put the intercept where the layer has a bias: behind the normalisation, else its own."""
    norm_bias = None if target.norm is None else target.norm.args[2]
    if isinstance(norm_bias, fx.Node):
        executor.parameter(str(norm_bias.target)).add_(intercept)
    elif layer.bias is not None:
        own = torch.where(usable, intercept / torch.where(usable, scale, 1), 0)
        executor.parameter(layer.bias).add_(own)

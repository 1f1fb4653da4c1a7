"""Sequential least-squares refit of a shrunk network to the dense one, without labels.

Layers are visited in execution order on the *shrunk* network's own activations; each is solved
in closed form for the dense value that its output should have, so errors made earlier are
repaired where they can be (the reconstruction step of He et al., 2017, "Channel pruning for
accelerating very deep neural networks", eq. 5, applied to residual sums).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, fx

from edgeprune.compress.executor import Environment, Executor, Values
from edgeprune.compress.gram import add_gram
from edgeprune.compress.landing import Landing, affine, landing
from edgeprune.compress.layers import WeightedLayer, weighted_layers

Targets = Mapping[str, Values]
# The positions of an output dimension that survive: (tensor, dim) -> indices, or None for all.
Survivors = Callable[[str, int], Tensor | None]
_SMALLEST_SCALE = 1e-6


def refit_layers(module: fx.GraphModule) -> dict[str, tuple[WeightedLayer, Landing]]:
    """The layers worth refitting, those that land on a residual sum, by name in order."""
    found = {}
    for name, layer in weighted_layers(module).items():
        target = landing(layer)
        if target.shortcut is not None:
            found[name] = (layer, target)
    return found


def dense_targets(
    module: fx.GraphModule, batches: Sequence[tuple[Tensor, ...]], names: Sequence[str]
) -> dict[str, Values]:
    """The dense model's values at the named nodes, kept in memory, a list over batches."""
    wanted = set(names)
    targets: dict[str, Values] = {}

    def after(node: fx.Node, environment: Environment) -> None:
        if node.name in wanted:
            targets[node.name] = environment[node]

    Executor(module, batches).run(after=after)
    return targets


@torch.no_grad()
def refit(
    module: fx.GraphModule,
    batches: Sequence[tuple[Tensor, ...]],
    targets: Targets,
    survivors: Survivors,
    damping: float = 1e-3,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[Tensor, ...]]:
    """Refit ``module`` in place and return its outputs on the batches after the refit.

    Args:
        module: The shrunk graph; its layers' weights, biases and the biases of batch
            normalisations behind them are overwritten.
        batches: What to fit on.
        targets: Dense values by node name on the same batches; layers whose landing is not
            among them stay as they are.
        survivors: Which positions of a weight's output dimension the shrunk graph kept.
        damping: Ridge towards the present weights, relative to the inputs' mean variance.
    """
    layers = {k: v for k, v in refit_layers(module).items() if v[1].node.name in targets}
    executor = Executor(module, batches)
    pending = _by_moment(executor, layers)
    done = 0

    def before(node: fx.Node, environment: Environment) -> None:
        nonlocal done
        for layer, target in pending.get(node.name, ()):
            _fit(
                executor, environment, layer, target, targets[target.node.name], survivors, damping
            )
            done += 1
            if progress is not None:
                progress(done, len(layers))

    return executor.run(before=before)


def _by_moment(
    executor: Executor, layers: Mapping[str, tuple[WeightedLayer, Landing]]
) -> dict[str, list[tuple[WeightedLayer, Landing]]]:
    """Each layer under the node before which it is fitted: itself, its shortcut being ready."""
    moments: dict[str, list[tuple[WeightedLayer, Landing]]] = {}
    for name, (layer, target) in layers.items():
        shortcut = target.shortcut
        if shortcut is None or executor.position[shortcut] < executor.position[layer.node]:
            moments.setdefault(name, []).append((layer, target))
    return moments


def _fit(
    executor: Executor,
    environment: Environment,
    layer: WeightedLayer,
    target: Landing,
    dense: Values,
    survivors: Survivors,
    damping: float,
) -> None:
    weight = executor.parameter(layer.weight)
    scale, shift = affine(executor, target.norm, len(weight))
    kept = survivors(layer.weight, 0)
    bias = None if layer.bias is None else executor.parameter(layer.bias)
    matrix = weight.flatten(1) * scale[:, None]
    offset = shift if bias is None else shift + bias * scale
    inputs = executor.input_values(layer.node, environment)
    shortcut = environment[target.shortcut] if target.shortcut is not None else None

    def residuals(index: int) -> tuple[Tensor, Tensor]:
        rows = layer.rows(inputs[index], weight)
        wanted = dense[index]
        if kept is not None:
            wanted = wanted.index_select(1 if layer.convolution else -1, kept)
        if shortcut is not None:
            wanted = wanted - shortcut[index]
        return rows, layer.flatten_output(wanted) - rows @ matrix.T - offset

    step, intercept = _ridge(residuals, len(inputs), damping)
    usable = scale.abs() > _SMALLEST_SCALE
    step = torch.where(usable[:, None], step, 0) / torch.where(usable, scale, 1)[:, None]
    weight.add_(step.reshape(weight.shape))
    _add_offset(executor, layer, target, intercept, scale, usable)


def _ridge(
    residuals: Callable[[int], tuple[Tensor, Tensor]], batches: int, damping: float
) -> tuple[Tensor, Tensor]:
    """Solve ``min |R - X Dᵀ - c|² + ridge |D|²`` for D (out, in) and c (out,), in float64."""
    gram = cross = mean_x = mean_r = None
    count = 0
    for index in range(batches):
        rows, rest = residuals(index)
        if gram is None or cross is None:
            width = rows.shape[1]
            gram = torch.zeros(width, width, dtype=torch.float64)
            cross = torch.zeros(width, rest.shape[1], dtype=torch.float64)
            mean_x = torch.zeros(width, dtype=torch.float64)
            mean_r = torch.zeros(rest.shape[1], dtype=torch.float64)
        add_gram(gram, rows)
        cross += (rows.T @ rest).double()
        mean_x += rows.sum(0).double()
        mean_r += rest.sum(0).double()
        count += len(rows)
    if gram is None or cross is None or mean_x is None or mean_r is None:
        raise ValueError("refit needs at least one batch")
    mean_x /= count
    mean_r /= count
    gram = gram / count - torch.outer(mean_x, mean_x)
    cross = cross / count - torch.outer(mean_x, mean_r)
    ridge = damping * gram.diagonal().mean().clamp_min(1e-12)
    gram += ridge * torch.eye(len(gram), dtype=torch.float64)
    step = torch.linalg.solve(gram, cross).T
    intercept = mean_r - step @ mean_x
    return step.float(), intercept.float()


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

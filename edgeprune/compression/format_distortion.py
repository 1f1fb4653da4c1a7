"""How far the model's output moves when the layers of one site alone get a format.

What zeros do is measured at the output for a few shares of zeros only. How much of the layer's own
output they lose is known from its Gram matrix for every format at little cost, and the error at
the output follows it along a power law between what was measured. Rounding to int8 is measured by
itself, and the costs of the layers of a site add up.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter

import numpy as np
import numpy.typing as npt
from torch import Tensor, fx

from edgeprune.compression.executor import Environment, Executor
from edgeprune.compression.fidelity import Outputs, output_error
from edgeprune.compression.sparsify import quickly
from edgeprune.formats import DENSE_INT8, Block, Format
from edgeprune.graph.choices import Choices
from edgeprune.graph.layers import WeightedLayer, weighted_layers
from edgeprune.graph.simulation import roundings
from edgeprune.graph.sites import Option, Site

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
Layers = Sequence[WeightedLayer]
# Of zeros in blocks, by block and share: how much of the layers' own output they lose.
_Losses = dict[tuple[Block, float], float]

# Shares of zeros at which a block's loss is found; others are interpolated.
_SHARES = 3
_LEAST = 1e-12


def measure_format_distortions(
    module: fx.GraphModule,
    choices: Choices,
    grams: Mapping[str, Tensor],
    batches: Sequence[tuple[Tensor, ...]],
    progress: Progress | None = None,
) -> dict[str, Floats]:
    """The output error of every option of every site, each applied alone.

    Args:
        module: The dense graph.
        choices: Its sites and their options.
        grams: Input Gram matrices of the sites' layers, by layer name.
        batches: What to measure on.
        progress: Called with the sites done, and their number.

    Returns:
        One array per site, aligned with its options.
    """
    executor = Executor(module, batches)
    dense = Executor(module, batches).run()
    layers = weighted_layers(module)
    environment: Environment = {}
    position = 0
    result = {}
    sites = sorted(choices.sites.values(), key=lambda s: _start(executor, s, layers))
    for number, site in enumerate(sites, 1):
        start = _start(executor, site, layers)
        executor.advance(environment, position, start)
        position = start
        error = partial(_error, executor, environment, start, dense, grams)
        together = [(name,) for name in site.layers] if site.in_a_row else [site.layers]
        options = choices.options[site.name]
        costs = [
            _Costs([layers[n] for n in names], _formats(site, options, names[0]), grams, error)
            for names in together
        ]
        result[site.name] = np.array(
            [sum(cost.of(f) for cost, f in zip(costs, option, strict=False)) for option in options]
        )
        if progress is not None:
            progress(number, len(sites))
    return result


class _Costs:
    """What every format of some layers alike costs at the output."""

    def __init__(
        self,
        layers: Layers,
        formats: set[Format],
        grams: Mapping[str, Tensor],
        error: Callable[[Layers, Format], float],
    ) -> None:
        self._int8 = 0.0
        if any(format_.precision == "int8" for format_ in formats):
            self._int8 = error(layers, DENSE_INT8)
        sparse = sorted((f for f in formats if f.block is not None), key=lambda f: f.sparsity)
        blocks = sorted({f.block for f in sparse if f.block is not None})
        shares = sorted({f.sparsity for f in sparse})
        picks = np.linspace(0, max(len(shares) - 1, 0), _SHARES).round().astype(int)
        chosen = [shares[i] for i in sorted(set(picks.tolist()))] if shares else []
        self._losses: _Losses = {
            (block, share): _loss(layers, Format("f32", block, share), grams)
            for block in blocks
            for share in chosen
        }
        # The widest block is the quickest to find.
        measured = [(blocks[-1], share) for share in (chosen[:1] + chosen[1:][-1:])]
        known = [(self._losses[key], error(layers, Format("f32", *key))) for key in measured]
        self._line = sorted((np.log(max(a, _LEAST)), np.log(max(b, _LEAST))) for a, b in known)

    def of(self, format_: Format) -> float:
        """The error at the output."""
        rounding = self._int8 if format_.precision == "int8" else 0.0
        if format_.block is None:
            return rounding
        known = sorted((s, loss) for (b, s), loss in self._losses.items() if b == format_.block)
        logs = np.maximum.accumulate(np.log([max(loss, _LEAST) for _, loss in known]))
        log_loss = float(np.interp(format_.sparsity, [s for s, _ in known], logs))
        return rounding + float(np.exp(self._at_output(log_loss)))

    def _at_output(self, log_loss: float) -> float:
        """Along the line through what was measured, beyond its ends too."""
        (x, y), (right, top) = self._line[0], self._line[-1]
        slope = (top - y) / (right - x) if right > x else 1.0
        # Half to twice in proportion: what is measured nearly at one point says no slope.
        bounded = min(max(float(slope), 0.5), 2.0)
        return float(y) + bounded * (log_loss - float(x))


def _loss(layers: Layers, format_: Format, grams: Mapping[str, Tensor]) -> float:
    """The share of layers' own outputs that a format's zeros lose, by their Gram matrices."""
    lost = whole = 0.0
    for layer in layers:
        matrix, gram = _matrix(layer), grams[layer.name]
        change = quickly(matrix, gram, format_) - matrix
        lost += float(((change @ gram) * change).sum())
        whole += float(((matrix @ gram) * matrix).sum())
    return float(lost / max(whole, 1e-30))


def _matrix(layer: WeightedLayer) -> Tensor:
    """The dense weight of a layer, (outputs, inputs)."""
    module = layer.node.graph.owning_module
    assert module is not None
    weight: Tensor = attrgetter(layer.weight)(module)
    return weight.detach().flatten(1)


def _error(
    executor: Executor,
    environment: Environment,
    start: int,
    dense: Outputs,
    grams: Mapping[str, Tensor],
    layers: Layers,
    format_: Format,
) -> float:
    """At the output, with some layers in a format and what stands in front computed already."""
    _apply(executor, layers, format_, grams)
    suffix = dict(environment)
    executor.advance(suffix, start)
    executor.override, executor.rounding = {}, {}
    return output_error(executor.outputs(suffix), dense)


def _apply(
    executor: Executor, layers: Layers, format_: Format, grams: Mapping[str, Tensor]
) -> None:
    """Let an executor run layers in a format: its zeros in the weights, and its rounding."""
    for layer in layers:
        weight = executor.parameter(layer.weight)
        if format_.sparse:
            thinned = quickly(weight.flatten(1), grams[layer.name], format_)
            weight = thinned.reshape(weight.shape)
        found = roundings(layer.node, format_)
        if found:
            executor.rounding[layer.name], of_weight = found
            weight = of_weight(weight)
        executor.override[layer.weight] = weight


def _formats(site: Site, options: Sequence[Option], layer: str) -> set[Format]:
    """All formats that a layer of a site may get."""
    place = site.layers.index(layer)
    return {option[place] for option in options}


def _start(executor: Executor, site: Site, layers: Mapping[str, WeightedLayer]) -> int:
    return min(executor.position[layers[name].node] for name in site.layers)

"""How far the model's output moves when the layers of one site alone get a format.

What a block of zeros costs is measured at a few sparsities and interpolated, rounding to int8 is
measured by itself, and the costs of the layers of a site add up: so a site with a hundred options
takes a dozen passes through what stands behind it.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
from torch import Tensor, fx

from edgeprune.compression.executor import Environment, Executor
from edgeprune.compression.fidelity import output_error
from edgeprune.compression.sparsify import quickly
from edgeprune.formats import DENSE_INT8, Block, Format
from edgeprune.graph.choices import Choices
from edgeprune.graph.layers import WeightedLayer, weighted_layers
from edgeprune.graph.simulation import roundings
from edgeprune.graph.sites import Site

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
# What is measured of one layer or several: the error by sparsity for a block, and of rounding.
_Measured = dict[Format, float]

# Of the offered sparsities so many are measured: the ends, and those evenly between.
_SPARSITIES = 3
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
        together = [(name,) for name in site.layers] if site.in_a_row else [site.layers]
        errors = {}
        for names in together:
            for format_ in _wanted(choices, site):
                apply(executor, [layers[name] for name in names], format_, grams)
                suffix = dict(environment)
                executor.advance(suffix, start)
                errors[names, format_] = output_error(executor.outputs(suffix), dense)
                executor.override, executor.rounding = {}, {}
        result[site.name] = _by_option(choices, site, together, errors)
        if progress is not None:
            progress(number, len(sites))
    return result


def apply(
    executor: Executor,
    layers: Sequence[WeightedLayer],
    format_: Format,
    grams: Mapping[str, Tensor],
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


def _wanted(choices: Choices, site: Site) -> list[Format]:
    """The formats to measure: each block at a few sparsities in float32, and both int8 forms."""
    formats = {format_ for option in choices.options[site.name] for format_ in option}
    sparse = [format_ for format_ in formats if format_.sparse]
    blocks = sorted({format_.block for format_ in sparse if format_.block is not None})
    sparsities = sorted({format_.sparsity for format_ in sparse})
    picks = np.linspace(0, len(sparsities) - 1, _SPARSITIES).round().astype(int)
    chosen = [sparsities[i] for i in sorted(set(picks.tolist()))] if sparsities else []
    wanted = [Format("f32", block, sparsity) for block, sparsity in product(blocks, chosen)]
    wanted += [_rounding_alone(p) for p in sorted({f.precision for f in sparse} - {"f32"})]
    return wanted + ([DENSE_INT8] if DENSE_INT8 in formats else [])


def _rounding_alone(precision: str) -> Format:
    """A sparse format without a zero."""
    return Format(precision, (1, 1), 0.0)  # type: ignore[arg-type]


def _by_option(
    choices: Choices,
    site: Site,
    together: Sequence[tuple[str, ...]],
    errors: Mapping[tuple[tuple[str, ...], Format], float],
) -> Floats:
    """The error of each option: what its layers' zeros and roundings cost, added up."""
    costs = []
    for option in choices.options[site.name]:
        formats = dict(zip(site.layers, option, strict=True))
        cost = 0.0
        for names in together:
            measured = {f: error for (of, f), error in errors.items() if of == names}
            cost += _cost(formats[names[0]], measured)
        costs.append(cost)
    return np.array(costs)


def _cost(format_: Format, measured: _Measured) -> float:
    if not format_.sparse:
        return measured.get(format_, 0.0)
    rounding = measured.get(_rounding_alone(format_.precision), 0.0)
    assert format_.block is not None
    return rounding + _of_zeros(format_.block, format_.sparsity, measured)


def _of_zeros(block: Block, sparsity: float, measured: _Measured) -> float:
    """Interpolated in the logarithm; more zeros never cost less."""
    known = sorted((f.sparsity, e) for f, e in measured.items() if f.block == block and f.sparsity)
    shares = [share for share, _ in known]
    logs = np.maximum.accumulate(np.log([max(error, _LEAST) for _, error in known]))
    return float(np.exp(np.interp(sparsity, shares, logs)))


def _start(executor: Executor, site: Site, layers: Mapping[str, WeightedLayer]) -> int:
    return min(executor.position[layers[name].node] for name in site.layers)

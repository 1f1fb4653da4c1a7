"""Offer the search its alternatives: for each structure the levels, their units and their cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgeprune import console
from edgeprune.compression.alternatives import Alternatives
from edgeprune.compression.calibration import Calibration, first_samples
from edgeprune.compression.consumers import consuming_layers
from edgeprune.compression.criteria import criterion
from edgeprune.compression.criteria.context import CriterionContext
from edgeprune.compression.distortion import measure_distortions
from edgeprune.compression.format_distortion import measure_format_distortions
from edgeprune.compression.gram import input_grams
from edgeprune.graph.choices import Choices
from edgeprune.graph.layers import weighted_layers
from edgeprune.graph.network import Network

_GRADIENT_SAMPLES = 192


@dataclass(frozen=True, eq=False)
class Offer:
    """The alternatives of all structures with the statistics that plans are built from.

    Attributes:
        alternatives: By structure name.
        grams: Input Gram matrix (float32) of each consuming layer, by layer name.
        formats: Output error of every option of each site, by site name.
    """

    alternatives: Mapping[str, Alternatives]
    grams: Mapping[str, Tensor]
    formats: Mapping[str, npt.NDArray[np.float64]]


def make_offer(
    network: Network,
    calibration: Calibration,
    choices: Choices,
    criterion_name: str,
    damping: float,
    samples: int,
    seed: int = 0,
) -> Offer:
    """Rank the units of every structure; measure what each level and format costs on its own.

    Args:
        network: The captured network with its structures.
        calibration: Gram matrices come from its ``fit`` part.
        choices: What is offered; structures and sites that are absent stay dense.
        criterion_name: A file of ``compression/criteria``.
        damping: Relative ridge of the Gram matrices.
        samples: Samples on which distortions are measured.
        seed: For criteria that draw at random.
    """
    levels = choices.levels
    structures = [s for s in network.structures.values() if s.name in levels]
    with console.progress("second-order statistics"):
        grams = needed_grams(network, calibration, choices)
    orders = _orders(network, calibration, levels, criterion_name, grams, damping, seed)
    with console.progress("distortion of each alternative") as bar:
        distortions = measure_distortions(
            network.captured.module,
            structures,
            levels,
            orders,
            grams,
            first_samples(calibration.fit, samples),
            damping,
            lambda done, total: bar.update(done, total=total),
        )
    found = {
        s.name: Alternatives(s.name, levels[s.name], orders[s.name], distortions[s.name])
        for s in structures
    }
    with console.progress("distortion of each format") as bar:
        formats = measure_format_distortions(
            network.captured.module,
            choices,
            grams,
            first_samples(calibration.fit, samples),
            lambda done, total: bar.update(done, total=total),
        )
    return Offer(found, grams, formats)


def needed_grams(network: Network, calibration: Calibration, choices: Choices) -> dict[str, Tensor]:
    """Gram matrices, in float32, of layers that consume structures or have a choice of formats."""
    layers = weighted_layers(network.captured.module)
    wanted = {
        layer.name: layer
        for name in choices.levels
        for _, layer in consuming_layers(network.structures[name], layers)
    }
    wanted.update({name: layers[name] for s in choices.sites.values() for name in s.layers})
    grams = input_grams(network.captured.module, wanted.values(), calibration.fit)
    return {name: gram.float() for name, gram in grams.items()}


def _orders(
    network: Network,
    calibration: Calibration,
    levels: Mapping[str, tuple[int, ...]],
    criterion_name: str,
    grams: Mapping[str, Tensor],
    damping: float,
    seed: int,
) -> dict[str, npt.NDArray[np.int64]]:
    chosen = criterion(criterion_name)
    module = network.captured.module
    gradients = None
    if chosen.needs_gradients:
        gradients = output_gradients(network, first_samples(calibration.fit, _GRADIENT_SAMPLES))
    context = CriterionContext(
        network=network,
        state=module.state_dict(),
        grams=grams,
        gradients=gradients,
        seed=seed,
        damping=damping,
    )
    orders = {}
    with console.progress("order of removal", len(levels)) as bar:
        for name in levels:
            order = chosen.order(network.structures[name], context)
            orders[name] = np.asarray(order, dtype=np.int64)
            bar.advance()
    return orders


def output_gradients(network: Network, batches: Sequence[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Gradients of the outputs' mean square with respect to every parameter, summed over batches.

    Without labels the size of the output stands in for the loss.
    """
    module = network.captured.module
    parameters = dict(module.named_parameters())
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for batch in batches:
        with torch.enable_grad():
            outputs = [out for out in module(*batch) if out.is_floating_point()]
            loss = torch.stack([out.square().mean() for out in outputs]).sum()
            grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, grad in zip(parameters, grads, strict=True):
            if grad is not None:
                total[name] += grad.detach()
    return total

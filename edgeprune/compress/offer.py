"""Offer the search its alternatives: for each structure the levels, their units and their cost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from edgeprune.compress.criteria.context import CriterionContext
from edgeprune.graph.network import Network
from torch import Tensor

from edgeprune.compress.alternatives import Alternatives
from edgeprune.compress.calibration import Calibration, first_samples
from edgeprune.compress.consumers import consuming_layers
from edgeprune.compress.criteria import criterion
from edgeprune.compress.distortion import measure_distortions
from edgeprune.compress.gram import input_grams
from edgeprune.compress.layers import weighted_layers

# The output error of one alternative is steady on far fewer samples than a Gram matrix.
_DISTORTION_SAMPLES = 192

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Offer:
    """The alternatives of all structures with the statistics that plans are built from.

    Attributes:
        alternatives: By structure name.
        grams: Input Gram matrix (float32) of each consuming layer, by layer name.
    """

    alternatives: Mapping[str, Alternatives]
    grams: Mapping[str, Tensor]


def make_offer(
    network: Network,
    calibration: Calibration,
    levels: Mapping[str, tuple[int, ...]],
    criterion_name: str,
    damping: float,
    seed: int = 0,
    progress: Progress | None = None,
) -> Offer:
    """Rank the units of every structure and measure what each level costs on its own.

    Args:
        network: The captured network with its structures.
        calibration: Gram matrices come from its ``fit`` part.
        levels: Levels offered, by structure; structures that are absent are left whole.
        criterion_name: A file of ``compress/criteria``.
        damping: Relative ridge of the Gram matrices.
        seed: For criteria that draw at random.
        progress: Called with what is being done, how many are done and of how many.
    """
    structures = [s for s in network.structures.values() if s.name in levels]
    grams = consumer_grams(network, calibration, list(levels))
    orders = _orders(network, calibration, levels, criterion_name, grams, damping, seed, progress)
    batches = first_samples(calibration.fit, _DISTORTION_SAMPLES)
    distortions = measure_distortions(
        network.captured.module,
        structures,
        levels,
        orders,
        grams,
        batches,
        damping,
        None if progress is None else lambda done, total: progress("distortions", done, total),
    )
    found = {
        s.name: Alternatives(s.name, levels[s.name], orders[s.name], distortions[s.name])
        for s in structures
    }
    return Offer(found, grams)


def consumer_grams(
    network: Network, calibration: Calibration, names: Sequence[str]
) -> dict[str, Tensor]:
    """Gram matrices, in float32, of the layers that consume any of the structures."""
    layers = weighted_layers(network.captured.module)
    wanted = {
        layer.name: layer
        for name in names
        for _, layer in consuming_layers(network.structures[name], layers)
    }
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
    progress: Progress | None,
) -> dict[str, npt.NDArray[np.int64]]:
    chosen = criterion(criterion_name)
    module = network.captured.module
    gradients = None
    if chosen.needs_gradients:
        gradients = output_gradients(network, first_samples(calibration.fit, _DISTORTION_SAMPLES))
    context = CriterionContext(
        network=network,
        state=module.state_dict(),
        grams=grams,
        gradients=gradients,
        seed=seed,
        damping=damping,
    )
    orders = {}
    for done, name in enumerate(levels):
        orders[name] = np.asarray(chosen.order(network.structures[name], context), dtype=np.int64)
        if progress is not None:
            progress("order of removal", done + 1, len(levels))
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

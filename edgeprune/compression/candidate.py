"""From a plan to a shrunk, compensated and refitted network, and how good it is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from edgeprune.compression.alternatives import Alternatives, kept_units
from edgeprune.compression.calibration import Batch
from edgeprune.compression.consumers import reduced_weights
from edgeprune.compression.fidelity import output_error, run_batches
from edgeprune.compression.refit import CachedTargets, LockstepTargets, Scope, Survivors, refit
from edgeprune.errors import StructureError
from edgeprune.graph.layers import weighted_layers
from edgeprune.graph.network import Network

Kept = Mapping[str, npt.NDArray[np.int64]]


def survivors(network: Network, keep: Kept) -> Survivors:
    """Which positions of a tensor's dimension the structures in ``keep`` leave standing."""
    gone: dict[tuple[str, int], npt.NDArray[np.bool_]] = {}
    for name, kept in keep.items():
        structure = network.structures[name]
        stays = np.zeros(structure.units + 1, dtype=bool)
        stays[kept] = True
        stays[-1] = True
        for slot in structure.slots:
            mask = stays[slot.unit]
            key = (slot.tensor, slot.dim)
            gone[key] = mask & gone[key] if key in gone else mask

    def positions(tensor: str, dim: int) -> Tensor | None:
        mask = gone.get((tensor, dim))
        return None if mask is None else torch.from_numpy(np.flatnonzero(mask))

    return positions


def compensated_state(
    network: Network, keep: Kept, grams: Mapping[str, Tensor], damping: float
) -> dict[str, Tensor]:
    """Full-size parameters with the consumers of everything removed already compensated."""
    module = network.captured.module
    state = dict(module.state_dict())
    layers = weighted_layers(module)
    for name, kept in keep.items():
        structure = network.structures[name]
        state.update(reduced_weights(structure, kept, layers, state, grams, damping))
    return state


@dataclass
class Candidates:
    """Builds and scores candidate plans; a score is kept so that no plan is built twice.

    Attributes:
        network: The captured network.
        alternatives: By structure name.
        grams: Input Gram matrices by layer name.
        fit: Batches of the small refit that precedes scoring.
        score: Batches on which a candidate is compared with the dense model.
        compensation: Relative ridge of the compensation.
        damping: Relative ridges of refits, from which every layer takes its best.
        refitting: Whether plans are refitted at all.
    """

    network: Network
    alternatives: Mapping[str, Alternatives]
    grams: Mapping[str, Tensor]
    fit: Sequence[Batch]
    score: Sequence[Batch]
    compensation: float
    damping: Sequence[float]
    refitting: bool = True
    scores: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dense = self.network.captured.module
        self._dense = run_batches(dense, self.score)
        self._targets = CachedTargets(dense, self.fit) if self.refitting else None

    def build(self, levels: Mapping[str, int]) -> fx.GraphModule:
        """The shrunk, compensated network of a plan after a small refit."""
        keep = kept_units(self.alternatives, levels)
        module = self._shrunk(keep)
        if self._targets is not None:
            kept = survivors(self.network, keep)
            refit(module, self.fit, self._targets, kept, self.damping)
        return module

    def build_final(
        self, levels: Mapping[str, int], batches: Sequence[Batch]
    ) -> tuple[fx.GraphModule, str]:
        """The network of a plan after the refit, of several, that scores best.

        Little data wants a strong ridge and few layers, much data a weak one and every layer;
        the scoring batches decide.

        Returns:
            The network, and a line that says which refit it was.
        """
        keep = kept_units(self.alternatives, levels)
        best, note = self._shrunk(keep), "no refit"
        least = self.error(best)
        if not self.refitting:
            return best, note
        scopes: tuple[Scope, ...] = ("all", "landing")
        dense, kept = self.network.captured.module, survivors(self.network, keep)
        for scope in scopes:
            module = self._shrunk(keep)
            targets = LockstepTargets(dense, batches, module, scope)
            refit(module, batches, targets, kept, self.damping, scope)
            error = self.error(module)
            if error < least:
                best, least = module, error
                note = f"refit of {scope} layers: output error {error:.4f}"
        return best, note

    def _shrunk(self, keep: Kept) -> fx.GraphModule:
        state = compensated_state(self.network, keep, self.grams, self.compensation)
        return self.network.shrink({k: v.tolist() for k, v in keep.items()}, state)

    def error(self, module: fx.GraphModule) -> float:
        """The output error of a built candidate on the scoring batches."""
        return output_error(run_batches(module, self.score), self._dense)

    @staticmethod
    def key(levels: Mapping[str, int]) -> str:
        """A plan as text, whatever the order of its structures."""
        return ",".join(f"{name}={level}" for name, level in sorted(levels.items()))

    def loss(self, levels: Mapping[str, int]) -> float:
        """The joint loss of a plan: its output error after a small refit.

        Infinite for levels that are possible one by one but not together.
        """
        key = self.key(levels)
        if key not in self.scores:
            try:
                self.scores[key] = self.error(self.build(levels))
            except StructureError:
                self.scores[key] = math.inf
        return self.scores[key]

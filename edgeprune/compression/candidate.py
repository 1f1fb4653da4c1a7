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
from edgeprune.compression.refit import (
    CachedTargets,
    LockstepTargets,
    NoTargets,
    Scope,
    Survivors,
    refit,
)
from edgeprune.compression.sparsify import carefully, quickly
from edgeprune.errors import StructureError
from edgeprune.formats import Format, Formats
from edgeprune.graph.choices import Choices
from edgeprune.graph.layers import weighted_layers
from edgeprune.graph.network import Network
from edgeprune.graph.simulation import simulate

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
        choices: What plans are made of.
        alternatives: By structure name.
        grams: Input Gram matrices by layer name.
        fit: Batches of the small refit that precedes scoring.
        score: Batches on which a candidate is compared with the dense model.
        compensation: Relative ridge of the compensation.
        damping: Relative ridges of refits, from which every layer takes its best.
        refitting: Whether plans are refitted at all.
    """

    network: Network
    choices: Choices
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

    def kept(self, plan: Mapping[str, int]) -> dict[str, npt.NDArray[np.int64]]:
        """The units that stay under a plan, for the structures that lose any."""
        return kept_units(self.alternatives, self.choices.levels_of(plan))

    def formats(self, plan: Mapping[str, int], module: fx.GraphModule) -> dict[str, Format]:
        """The formats of the layers that a plan's module still has, but for dense ones."""
        there = weighted_layers(module)
        return {n: f for n, f in self.choices.formats_of(plan).items() if n in there}

    def build(self, plan: Mapping[str, int]) -> fx.GraphModule:
        """The shrunk, compensated network of a plan after a small refit, as its formats compute."""
        keep = self.kept(plan)
        module = self._shrunk(keep)
        formats = self.formats(plan, module)
        targets = self._targets or NoTargets()
        scope: Scope = "none" if self._targets is None else "landing"
        kept = survivors(self.network, keep)
        refit(
            module,
            self.fit,
            targets,
            kept,
            self.damping,
            scope,
            formats=formats,
            sparsify=quickly,
        )
        return simulate(module, formats)

    def build_final(
        self, plan: Mapping[str, int], batches: Sequence[Batch]
    ) -> tuple[fx.GraphModule, str]:
        """The network of a plan after the refit, of several, that scores best.

        Little data wants a strong ridge and few layers, much data a weak one and every layer;
        the scoring batches decide.

        Returns:
            The network, and a line that says which refit it was.
        """
        keep = self.kept(plan)
        kept = survivors(self.network, keep)
        scopes: tuple[Scope, ...] = ("all", "landing", "none") if self.refitting else ("none",)
        best: tuple[float, fx.GraphModule, str] | None = None
        for scope in scopes:
            module = self._shrunk(keep)
            formats = self.formats(plan, module)
            if scope == "none" and best is not None and any(f.sparse for f in formats.values()):
                break  # a refit never did worse there, and finding the zeros takes long
            targets = (
                NoTargets()
                if scope == "none"
                else LockstepTargets(self.network.captured.module, batches, module, scope)
            )
            refit(
                module,
                batches,
                targets,
                kept,
                self.damping,
                scope,
                formats=formats,
                sparsify=carefully,
            )
            error = self.error(module, formats)
            note = "no refit" if scope == "none" else f"refit of {scope} layers"
            if best is None or error < best[0]:
                best = error, module, f"{note}: output error {error:.4f}"
        assert best is not None
        return best[1], best[2]

    def _shrunk(self, keep: Kept) -> fx.GraphModule:
        state = compensated_state(self.network, keep, self.grams, self.compensation)
        return self.network.shrink({k: v.tolist() for k, v in keep.items()}, state)

    def error(self, module: fx.GraphModule, formats: Formats | None = None) -> float:
        """The output error of a network on the scoring batches, as its formats compute."""
        computed = simulate(module, formats) if formats else module
        return output_error(run_batches(computed, self.score), self._dense)

    @staticmethod
    def key(levels: Mapping[str, int]) -> str:
        """A plan as text, whatever the order of its structures."""
        return ",".join(f"{name}={level}" for name, level in sorted(levels.items()))

    def loss(self, plan: Mapping[str, int]) -> float:
        """The joint loss of a plan: its output error after a small refit.

        Infinite for levels that are possible one by one but not together.
        """
        key = self.key(plan)
        if key not in self.scores:
            try:
                self.scores[key] = self.error(self.build(plan))
            except StructureError:
                self.scores[key] = math.inf
        return self.scores[key]

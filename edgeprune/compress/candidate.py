"""From a plan to a shrunk, compensated and refitted network, and how good it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from edgeprune.graph.network import Network
from torch import Tensor, fx

from edgeprune.compress.alternatives import Alternatives, kept_units
from edgeprune.compress.calibration import Batch
from edgeprune.compress.consumers import reduced_weights
from edgeprune.compress.executor import Values
from edgeprune.compress.fidelity import output_error, run_batches
from edgeprune.compress.layers import weighted_layers
from edgeprune.compress.refit import Survivors, dense_targets, refit, refit_layers

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
class FitData:
    """Calibration batches with the dense model's values that layers are fitted to.

    Attributes:
        batches: What to fit on.
        targets: Dense values by node name, a list over the batches.
    """

    batches: Sequence[Batch]
    targets: Mapping[str, Values]

    @classmethod
    def of(cls, module: fx.GraphModule, batches: Sequence[Batch]) -> "FitData":
        """Run the dense ``module`` once and keep what refitting needs."""
        names = [target.node.name for _, target in refit_layers(module).values()]
        return cls(batches, dense_targets(module, batches, names))


@dataclass
class Candidates:
    """Builds and scores candidate plans; a score is kept so that no plan is built twice.

    Attributes:
        network: The captured network.
        alternatives: By structure name.
        grams: Input Gram matrices by layer name.
        fit: What small refits are done on.
        score: Batches on which a candidate is compared with the dense model.
        damping: Relative ridge of compensation and refit.
        refitting: Whether plans are refitted at all.
    """

    network: Network
    alternatives: Mapping[str, Alternatives]
    grams: Mapping[str, Tensor]
    fit: FitData
    score: Sequence[Batch]
    damping: float
    refitting: bool = True
    scores: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._dense = run_batches(self.network.captured.module, self.score)

    def build(self, levels: Mapping[str, int], fit: FitData | None = None) -> fx.GraphModule:
        """The shrunk network of a plan, compensated and refitted on ``fit``."""
        keep = kept_units(self.alternatives, levels)
        state = compensated_state(self.network, keep, self.grams, self.damping)
        module = self.network.shrink({k: v.tolist() for k, v in keep.items()}, state)
        if self.refitting:
            data = fit or self.fit
            refit(module, data.batches, data.targets, survivors(self.network, keep), self.damping)
        return module

    def error(self, module: fx.GraphModule) -> float:
        """The output error of a built candidate on the scoring batches."""
        return output_error(run_batches(module, self.score), self._dense)

    @staticmethod
    def key(levels: Mapping[str, int]) -> str:
        """A plan as text, whatever the order of its structures."""
        return ",".join(f"{name}={level}" for name, level in sorted(levels.items()))

    def loss(self, levels: Mapping[str, int]) -> float:
        """The joint loss of a plan: its output error after a small refit."""
        key = self.key(levels)
        if key not in self.scores:
            self.scores[key] = self.error(self.build(levels))
        return self.scores[key]

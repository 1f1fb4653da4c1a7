"""Where the dense model's measured time goes: to which structures its layers belong."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprune.errors import InputError
from edgeprune.latency.attribution import Attribution
from edgeprune.latency.signature import network_signature, plan_signature
from edgeprune.latency.table import Table

if TYPE_CHECKING:
    from edgeprune.graph.network import Network


@dataclass(frozen=True)
class DenseTimes:
    """The dense model's time, shared out.

    Attributes:
        dense_ms: Of the whole model.
        by_structures: Milliseconds of the layers whose time depends on exactly these structures;
            none for what depends on no structure. They add up to ``dense_ms`` at most: what the
            runtime spends between layers is in none.
    """

    dense_ms: float
    by_structures: dict[tuple[str, ...], float]

    def of(self, structure: str) -> float:
        """Milliseconds of the layers whose time depends on a structure, perhaps among others."""
        return sum(ms for names, ms in self.by_structures.items() if structure in names)

    @property
    def prunable_ms(self) -> float:
        """Milliseconds of the layers whose time depends on any structure."""
        return sum(ms for names, ms in self.by_structures.items() if names)


def dense_times(network: "Network", table: Table, dense_ms: float) -> DenseTimes:
    """Share out the least disturbed profile of the dense model in a device's table.

    Args:
        network: The analysed network.
        table: The device's, with this network profiled.
        dense_ms: What the whole model takes.

    Raises:
        InputError: The table holds no profile of the dense model.
    """
    full = {name: structure.units for name, structure in network.structures.items()}
    records = table.all("layers", plan_signature(network_signature(network), full))
    if not records:
        raise InputError("the dense model has not been profiled: profile again")
    layers = min(records, key=lambda record: record["disturbed"])["layers"]
    found: dict[tuple[str, ...], float] = {}
    for (names, _), us in Attribution(network, layers).time_by_bucket(layers).items():
        found[names] = found.get(names, 0.0) + us / 1e3
    # Reading its clock for each layer slows a runtime down, and a whole model has no part longer.
    scale = min(1.0, dense_ms / max(sum(found.values()), 1e-9))
    return DenseTimes(dense_ms, {names: scale * ms for names, ms in found.items()})

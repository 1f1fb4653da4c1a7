"""What of a network can be pruned, for a person to read."""

from collections import Counter
from dataclasses import dataclass

from edgeprune.graph.structure import Frozen, Structure


@dataclass(frozen=True)
class Summary:
    """Reach of pruning in one network.

    Attributes:
        structures: Per structure name, kind, units and whether it may be emptied.
        share_prunable: Share of the parameters of weights (matrices and kernels of layers) in
            which some structure has a dimension.
        unprunable: Weights in which none has.
        renormalised: Nodes whose normalisation statistics will be taken over the survivors.
        frozen: What could not be pruned, and the operator at whose line.
    """

    structures: tuple[tuple[str, str, int, bool], ...]
    share_prunable: float
    unprunable: tuple[str, ...]
    renormalised: tuple[str, ...]
    frozen: tuple[Frozen, ...]

    def __str__(self) -> str:
        lines = [f"{self.share_prunable:.1%} of the weights' parameters can be pruned"]
        for name, kind, units, removable in self.structures:
            lines.append(f"  {name}: {units} {kind}{', removable' if removable else ''}")
        if self.unprunable:
            lines.append(f"not prunable: {', '.join(self.unprunable)}")
        for (operator, place, reason), count in self.frozen_by_operator():
            who = f"{operator} at {place}" if operator else "the rules"
            lines.append(f"  {who} froze {count} dimensions: {reason}")
        if self.renormalised:
            lines.append(f"statistics over survivors: {', '.join(self.renormalised)}")
        return "\n".join(lines)

    def frozen_by_operator(self) -> list[tuple[tuple[str, str, str], int]]:
        """Operator, source line and reason, with how many weight dimensions each froze."""
        return Counter(entry.cause for entry in self.frozen).most_common()


def summarise(
    structures: dict[str, Structure],
    frozen: tuple[Frozen, ...],
    weights: dict[str, int],
    renormalised: tuple[str, ...],
) -> Summary:
    """The summary; ``weights`` maps each layer weight to its number of parameters."""
    touched = {slot.tensor for s in structures.values() for slot in s.slots}
    total = sum(weights.values())
    prunable = sum(count for name, count in weights.items() if name in touched)
    return Summary(
        tuple((s.name, s.kind, s.units, s.removable) for s in structures.values()),
        prunable / total if total else 0.0,
        tuple(name for name in weights if name not in touched),
        renormalised,
        frozen,
    )

"""The report of what cannot be pruned, and why."""

import numpy as np
from torch.fx import Node

from edgeprune.graph.coupling import Coupling
from edgeprune.graph.layout import Dims, Layout
from edgeprune.graph.structure import Frozen


def frozen_parameters(coupling: Coupling) -> tuple[Frozen, ...]:
    """One entry for each weight dimension of which anything is frozen, and each cause."""
    found: list[Frozen] = []
    for name, dims in coupling.parameters.items():
        for dim, labels in enumerate(dims):
            if labels is None or len(dims) < 2 or (name, dim) not in coupling.uses:
                continue
            where = "output" if coupling.uses[name, dim].role == "output" else "input"
            causes = coupling.sets.cause(labels.numpy())
            numbers, counts = np.unique(causes[causes != 0], return_counts=True)
            for number, count in zip(numbers.tolist(), counts.tolist()):
                cause = coupling.causes[number]
                found.append(
                    Frozen(
                        tensor=name,
                        dim=dim,
                        positions=count,
                        operator=cause.operator,
                        node=cause.node,
                        source=cause.source,
                        reason=f"{where} features (dim {dim}): {cause.reason}",
                    )
                )
    return tuple(found)


def renormalised_nodes(coupling: Coupling, layout: Layout) -> tuple[str, ...]:
    """Normalisations whose statistics run over features that can be removed."""
    return tuple(
        node.name
        for node in coupling.renormalised
        if any(d is not None for d in _input_units(layout, node))
    )


def _input_units(layout: Layout, node: Node) -> Dims:
    source = node.args[0]
    assert isinstance(source, Node)
    tensors = layout.values.get(source)
    return tensors[0] if tensors else ()

"""What no node computes any more once a structure is empty: what only its block read goes, too."""

from typing import TYPE_CHECKING

from edgeprune.graph.validation import computing

if TYPE_CHECKING:
    from edgeprune.graph.network import Network


def needed_structures(network: "Network") -> dict[str, frozenset[str]]:
    """By graph node the structures without any single one of which it is not run.

    Those that empty the node itself are among them, and those that leave it but a constant. Without
    the neurons of a mixture, say, its router is not run. What computes nothing of the inputs is
    left out.
    """
    names = [node.name for node in computing(network.captured.module.graph)]
    needed: dict[str, set[str]] = {name: set() for name in names}
    for structure, run in network.run_without.items():
        for name in names:
            if name not in run:
                needed[name].add(structure)
    return {name: frozenset(structures) for name, structures in needed.items()}

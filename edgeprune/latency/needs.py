"""What no node computes any more once a structure is empty: what only its block read goes, too."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeprune.graph.network import Network


def needed_structures(network: "Network") -> dict[str, frozenset[str]]:
    """By graph node the structures without any single one of which it is not run.

    Those that empty the node itself are among them. Without the neurons of a mixture, say, its
    router is not run, and without a squeeze's neurons no mean over the image.
    """
    names = [n.name for n in network.captured.module.graph.nodes if n.op == "call_function"]
    needed: dict[str, set[str]] = {name: set() for name in names}
    for structure in network.structures.values():
        if structure.least:
            continue
        run = network.run_without(structure.name)
        for name in names:
            if name not in run:
                needed[name].add(structure.name)
    return {name: frozenset(structures) for name, structures in needed.items()}

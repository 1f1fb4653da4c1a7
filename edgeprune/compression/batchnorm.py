"""BatchNorm statistics of a shrunk network, re-estimated only where that helps.

Statistics of training come from augmented data; taken anew on plain calibration data they can
make a network worse, pruned or not. So both are scored and the better one stays.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx

from edgeprune.compression.executor import Environment, Executor

aten = torch.ops.aten
_MEAN, _VARIANCE = 3, 4


def reestimated(
    module: fx.GraphModule,
    batches: Sequence[tuple[Tensor, ...]],
    error: Callable[[fx.GraphModule], float],
) -> tuple[fx.GraphModule, str]:
    """The module with the statistics, old or new, that give the smaller error.

    Args:
        module: The shrunk, refitted network.
        batches: What the new statistics are taken over.
        error: Scores a network on other data.

    Returns:
        The better network, and a line that says which it was.
    """
    if not any(node.target is aten.batch_norm.default for node in module.graph.nodes):
        return module, "no batch normalisation to re-estimate"
    renewed = copy.deepcopy(module)
    _estimate(renewed, batches)
    before, after = error(module), error(renewed)
    if after < before:
        return renewed, f"BatchNorm re-estimated: output error {before:.4f} -> {after:.4f}"
    return module, f"BatchNorm kept: re-estimating would give {after:.4f} for {before:.4f}"


@torch.no_grad()
def _estimate(module: fx.GraphModule, batches: Sequence[tuple[Tensor, ...]]) -> None:
    """Overwrite running statistics, layer by layer on the renewed network's own activations."""
    executor = Executor(module, batches)

    def before(node: fx.Node, environment: Environment) -> None:
        if node.target is not aten.batch_norm.default:
            return
        values = executor.input_values(node, environment)
        dims = [d for d in range(values[0].dim()) if d != 1]
        count = sum(v.numel() // v.shape[1] for v in values)
        mean = torch.stack([v.double().sum(dims) for v in values]).sum(0) / count
        square = torch.stack([v.double().square().sum(dims) for v in values]).sum(0) / count
        for index, value in ((_MEAN, mean), (_VARIANCE, (square - mean**2).clamp_min(0))):
            source = node.args[index]
            if isinstance(source, fx.Node):
                buffer = executor.parameter(str(source.target))
                buffer.copy_(value.to(buffer.dtype))

    executor.run(before=before)

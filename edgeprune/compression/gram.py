"""Gram matrices of layer inputs, the second-order information about every removal.

Each batch's ``XᵀX`` is formed in float32 and added in float64, so that a long calibration set
does not lose its small eigenvalues. Memory is the sum of the squared input widths: for a
110M-parameter encoder (12 layers, 768 wide, 3,072 neurons) 12 * (768² + 3072²) * 8 bytes =
0.96 GB, independent of the number of samples.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, fx

from edgeprune.compression.executor import Environment, Executor
from edgeprune.graph.layers import WeightedLayer

_ROWS_AT_ONCE = 1 << 16
# Neighbouring positions of a convolution say much the same: so many rows, or so many times the
# width, determine the matrix, and more only cost time.
_MOST_ROWS, _ROWS_PER_COLUMN, _FEWEST_SAMPLES = 1 << 15, 16, 256


def add_gram(total: Tensor, rows: Tensor) -> None:
    """Add ``rowsᵀ rows`` (positions, width) to the float64 matrix ``total`` (width, width)."""
    for part in torch.split(rows, _ROWS_AT_ONCE):
        total += (part.T @ part).double()


def input_grams(
    module: fx.GraphModule,
    layers: Iterable[WeightedLayer],
    batches: Sequence[tuple[Tensor, ...]],
) -> dict[str, Tensor]:
    """The mean Gram matrix of every layer's input, by layer name.

    Layers that read the same node with the same geometry share one matrix.

    Returns:
        float64 tensors of shape (in * kernel, in * kernel), divided by the number of positions.
    """
    wanted = {layer.name: layer for layer in layers}
    grams: dict[str, Tensor] = {}
    shared: dict[object, Tensor] = {}
    executor = Executor(module, batches)

    def before(node: fx.Node, environment: Environment) -> None:
        layer = wanted.get(node.name)
        if layer is None:
            return
        weight = executor.parameter(layer.weight)
        key = (node.args[0], tuple(weight.shape[1:]), node.args[3:6], layer.convolution)
        if str(key) not in shared:
            shared[str(key)] = _mean_gram(layer, weight, executor.input_values(node, environment))
        grams[node.name] = shared[str(key)]

    executor.run(before=before)
    return grams


def _mean_gram(layer: WeightedLayer, weight: Tensor, values: list[Tensor]) -> Tensor:
    width = weight[0].numel()
    total = torch.zeros(width, width, dtype=torch.float64)
    positions = 0
    sample_step, row_step = _steps(layer, values, width)
    for value in values:
        rows = layer.rows(value[::sample_step], weight)[::row_step]
        add_gram(total, rows)
        positions += len(rows)
    return total / max(positions, 1)


def _steps(layer: WeightedLayer, values: list[Tensor], width: int) -> tuple[int, int]:
    """Which share of samples, and of positions within them, to read."""
    if not layer.convolution:
        return 1, 1
    samples = sum(len(value) for value in values)
    rows = samples * values[0][0, 0].numel()
    surplus = max(1, rows // max(_MOST_ROWS, _ROWS_PER_COLUMN * width))
    sample_step = min(surplus, max(1, samples // _FEWEST_SAMPLES))
    return sample_step, max(1, surplus // sample_step)

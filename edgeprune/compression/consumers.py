"""The layers that consume a structure's units, ready for second-order removal."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgeprune.compression.second_order import Consumer, compensate
from edgeprune.graph.layers import WeightedLayer
from edgeprune.graph.structure import Slot, Structure


def column_units(slot: Slot, layer: WeightedLayer, weight: Tensor) -> npt.NDArray[np.int32]:
    """The unit of every column of the layer's matrix, -1 where a column belongs to none."""
    return np.repeat(slot.unit, layer.columns(weight)).astype(np.int32)


def consuming_layers(
    structure: Structure, layers: Mapping[str, WeightedLayer]
) -> list[tuple[Slot, WeightedLayer]]:
    """The input slots whose layer is a plain matrix product, with that layer."""
    found = []
    for slot in structure.inputs():
        layer = layers.get(slot.layer)
        if layer is not None and layer.weight == slot.tensor and slot.dim == 1:
            found.append((slot, layer))
    return found


def consumers(
    structure: Structure,
    layers: Mapping[str, WeightedLayer],
    state: Mapping[str, Tensor],
    grams: Mapping[str, Tensor],
) -> list[Consumer]:
    """Every consumer of the structure that has a Gram matrix."""
    found = []
    for slot, layer in consuming_layers(structure, layers):
        if layer.name in grams:
            weight = state[layer.weight]
            unit = column_units(slot, layer, weight)
            found.append(Consumer(weight.flatten(1), grams[layer.name], unit))
    return found


def reduced_weights(
    structure: Structure,
    kept: Sequence[int] | npt.NDArray[np.int64],
    layers: Mapping[str, WeightedLayer],
    state: Mapping[str, Tensor],
    grams: Mapping[str, Tensor],
    damping: float,
) -> dict[str, Tensor]:
    """Full-size weights of the structure's consumers once only ``kept`` units remain.

    The columns that went are zero, the others compensate where a Gram matrix is at hand.

    Returns:
        The changed tensors by qualified name.
    """
    stays = np.zeros(structure.units + 1, dtype=bool)
    stays[np.asarray(kept, dtype=np.int64)] = True
    stays[-1] = True
    changed: dict[str, Tensor] = {}
    matrices = {
        (slot.tensor, slot.dim): layer for slot, layer in consuming_layers(structure, layers)
    }
    for slot in structure.inputs():
        weight = changed.get(slot.tensor, state[slot.tensor])
        layer = matrices.get((slot.tensor, slot.dim))
        if layer is not None and layer.name in grams:
            columns = stays[column_units(slot, layer, weight)]
            matrix = compensate(weight.flatten(1), grams[layer.name], columns, damping)
            changed[slot.tensor] = matrix.reshape(weight.shape)
        else:
            mask = torch.from_numpy(stays[slot.unit]).to(weight.dtype)
            shape = [1] * weight.dim()
            shape[slot.dim] = -1
            changed[slot.tensor] = weight * mask.reshape(shape)
    return changed

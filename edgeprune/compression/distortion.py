"""How far the model's output moves when one alternative alone is applied.

The dense model runs once; each alternative runs only what comes after the layers it changes.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from edgeprune.compression.consumers import reduced_weights
from edgeprune.compression.executor import Environment, Executor
from edgeprune.compression.fidelity import output_error
from edgeprune.graph.layers import weighted_layers
from edgeprune.graph.structure import Structure

# Between so many measured levels the distortion is interpolated; it is smooth in the level.
_MEASURED = 8

Orders = Mapping[str, npt.NDArray[np.int64]]
Progress = Callable[[int, int], None]


def measured_levels(levels: Sequence[int]) -> tuple[int, ...]:
    """The levels to measure: all of few, else the ends and evenly spaced ones between."""
    cut = list(levels[:-1])
    if len(cut) <= _MEASURED:
        return tuple(cut)
    picks = np.linspace(0, len(cut) - 1, _MEASURED).round().astype(int)
    return tuple(cut[i] for i in sorted(set(picks.tolist())))


def interpolate(levels: Sequence[int], measured: Mapping[int, float]) -> npt.NDArray[np.float64]:
    """Distortion at every level from those measured, log-linear and non-increasing."""
    known = sorted(measured)
    floor = 1e-12
    logs = np.log([max(measured[level], floor) for level in known])
    values = np.exp(np.interp(levels[:-1], known, logs))
    # More units never hurt: where noise says otherwise the better figure holds for both.
    values = np.minimum.accumulate(values)
    return np.append(values, 0.0)


def measure_distortions(
    module: fx.GraphModule,
    structures: Sequence[Structure],
    levels: Mapping[str, tuple[int, ...]],
    orders: Orders,
    grams: Mapping[str, Tensor],
    batches: Sequence[tuple[Tensor, ...]],
    damping: float,
    progress: Progress | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """The output error of every (structure, level), each applied alone.

    Returns:
        One array per structure, aligned with its levels; 0 at the full level.
    """
    executor = Executor(module, batches)
    dense = Executor(module, batches).run()
    layers = weighted_layers(module)
    state = dict(module.state_dict())
    environment: Environment = {}
    position = done = 0
    total = sum(len(measured_levels(levels[s.name])) for s in structures)
    result = {}
    for structure in sorted(structures, key=lambda s: _start(executor, s)):
        start = _start(executor, structure)
        executor.advance(environment, position, start)
        position = start
        measured = {}
        for level in measured_levels(levels[structure.name]):
            order = orders[structure.name]
            kept = order[len(order) - level :]
            executor.override = reduced_weights(structure, kept, layers, state, grams, damping)
            executor.barred = _barred(structure, order[: len(order) - level])
            suffix = dict(environment)
            executor.advance(suffix, start)
            measured[level] = output_error(executor.outputs(suffix), dense)
            executor.override, executor.barred = {}, {}
            done += 1
            if progress is not None:
                progress(done, total)
        result[structure.name] = interpolate(levels[structure.name], measured)
    return result


def _barred(structure: Structure, gone: npt.NDArray[np.int64]) -> dict[str, Tensor]:
    """The places in a router's logits, by its name, that experts have of whom these are gone."""
    router = structure.router()
    if router is None:
        return {}
    return {router.layer: torch.from_numpy(np.flatnonzero(np.isin(router.unit, gone)))}


def _start(executor: Executor, structure: Structure) -> int:
    """Where the first layer that consumes the structure, or chooses among it, is in the graph."""
    router = structure.router()
    if router is not None:
        return next(i for node, i in executor.position.items() if node.name == router.layer)
    tensors = {slot.tensor for slot in structure.inputs()}
    positions = [
        executor.position[node]
        for node in executor.nodes
        if any(n.op == "get_attr" and n.target in tensors for n in node.all_input_nodes)
    ]
    return min(positions, default=0)

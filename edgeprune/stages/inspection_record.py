"""What can be pruned of a network, as JSON values."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edgeprune.graph.layer_names import layer_name
from edgeprune.graph.network import Network
from edgeprune.graph.parameter_counts import (
    frozen_groups,
    parameter_shapes,
    prunable_parameters,
    structure_parameters,
)
from edgeprune.graph.structure import Role, Structure
from edgeprune.latency.dense_times import DenseTimes


def inspection_record(
    network: Network, names: Sequence[str], kinds: Sequence[str], times: DenseTimes | None
) -> dict[str, Any]:
    """Structures with what they tie, what cannot be pruned and why, and measured times.

    Args:
        network: The analysed network.
        names: The structures to list.
        kinds: Kinds of structures that a recipe offers, or ``all``.
        times: Where the dense model's time goes, if it was measured.

    Returns:
        ``parameters`` (``total``, ``prunable``, ``share_prunable``), ``structures``, ``frozen``,
        ``unprunable``, ``renormalised``, ``notes`` and ``latency``. Shares of parameters and of
        time overlap where a layer belongs to several structures.
    """
    sizes = {name: math.prod(shape) for name, shape in parameter_shapes(network).items()}
    total, prunable = sum(sizes.values()), prunable_parameters(network)
    counts = structure_parameters(network)
    rows = [
        {
            **_structure(network.structures[name]),
            "offered": "all" in kinds or network.structures[name].kind in kinds,
            "parameters": counts[name],
            "share": counts[name] / total if total else 0.0,
        }
        for name in names
    ]
    if times is not None:
        for row in rows:
            row["time_ms"] = times.of(row["name"])
            row["time_share"] = times.of(row["name"]) / times.dense_ms
    return {
        "parameters": {
            "total": total,
            "prunable": prunable,
            "share_prunable": prunable / total if total else 0.0,
        },
        "structures": rows,
        "frozen": [
            {**asdict(group), "tensors": list(group.tensors)} for group in frozen_groups(network)
        ],
        "unprunable": _unprunable(network, sizes),
        "renormalised": list(network.renormalised),
        "notes": list(network.captured.notes),
        "latency": None if times is None else _latency(times),
    }


def _structure(structure: Structure) -> dict[str, Any]:
    return {
        "name": structure.name,
        "kind": structure.kind,
        "units": structure.units,
        "removable": structure.removable,
        "least": structure.least,
        "produced_by": _layers(structure, "output"),
        "consumed_by": _layers(structure, "input"),
        "goes_along": _layers(structure, "vector"),
        "slots": [
            {
                "tensor": slot.tensor,
                "dim": slot.dim,
                "size": len(slot.unit),
                "positions": int((slot.unit >= 0).sum()),
                "role": slot.role,
                "layer": slot.layer,
            }
            for slot in structure.slots
        ],
    }


def _layers(structure: Structure, role: Role) -> list[str]:
    named = (layer_name(slot.tensor) for slot in structure.slots if slot.role == role)
    return list(dict.fromkeys(named))


def _unprunable(network: Network, sizes: dict[str, int]) -> list[dict[str, Any]]:
    """Weights in which no structure has a dimension, with what froze them; the largest first."""
    touched = {slot.tensor for s in network.structures.values() for slot in s.slots}
    shapes = parameter_shapes(network)
    left = [name for name in sizes if name not in touched and len(shapes[name]) > 1]
    return [
        {
            "tensor": name,
            "parameters": sizes[name],
            "reasons": [str(entry) for entry in network.frozen if entry.tensor == name],
        }
        for name in sorted(left, key=lambda name: -sizes[name])
    ]


def _latency(times: DenseTimes) -> dict[str, Any]:
    return {
        "dense_ms": times.dense_ms,
        "prunable_ms": times.prunable_ms,
        "parts": [
            {"structures": list(names), "ms": ms} for names, ms in times.by_structures.items()
        ],
    }

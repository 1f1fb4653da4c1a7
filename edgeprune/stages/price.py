"""What the search chooses from: levels, their measured times, and their measured distortions."""

import json
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from edgeprune import console
from edgeprune.atomic import atomic_path, atomic_write_json
from edgeprune.compression.alternatives import Alternatives, offered_levels
from edgeprune.compression.offer import Offer, make_offer
from edgeprune.errors import InputError
from edgeprune.latency.model import LatencyModel
from edgeprune.latency.profiler import profile_network
from edgeprune.latency.store import open_table
from edgeprune.search.problem import Group, Pair, Problem
from edgeprune.stages.run import Run, Subject

Levels = dict[str, tuple[int, ...]]


def choose_levels(run: Run, subject: Subject) -> Levels:
    """The levels to offer of each structure, by what the device likes and the recipe allows.

    Raises:
        InputError: The model has none of the kinds of structures that the recipe offers.
    """
    multiple, most = run.target.channel_multiple, run.recipe.search.max_levels
    kinds = run.recipe.search.kinds
    there = sorted({structure.kind for structure in subject.network.structures.values()})
    if "all" not in kinds and not set(kinds) & set(there):
        raise InputError(
            f"the recipe offers {', '.join(kinds)} only, and this model has {', '.join(there)}; "
            "change search.kinds"
        )
    return {
        name: offered_levels(structure, multiple, most)
        for name, structure in subject.network.structures.items()
        if "all" in kinds or structure.kind in kinds
    }


def measure_latency(run: Run, subject: Subject, levels: Levels) -> LatencyModel:
    """The latency of every plan on the device, from the table or measured now."""
    stage = run.workspace.stage(
        "latency",
        {"model": subject.key, "levels": _listed(levels), "device": run.fingerprint.key},
    )
    if not stage.done:
        table = open_table(run.fingerprint)
        with console.progress(f"profiling on {run.target.name}") as bar:
            model = profile_network(
                subject.network,
                run.target,
                run.device,
                levels,
                table,
                stage.folder,
                lambda done, total, note: bar.update(done, total=total, note=note),
            )
        stage.finish(json.loads(model.to_json()))
    return LatencyModel.from_json(json.dumps(stage.result))


def offer_alternatives(run: Run, subject: Subject, levels: Levels) -> Offer:
    """Order of removal, distortions and Gram matrices, from the run folder or made now."""
    stage = run.workspace.stage(
        "alternatives",
        {
            "model": subject.key,
            "task": run.task.key,
            "data": subject.data_key,
            "levels": _listed(levels),
            "criterion": run.recipe.criterion,
            "samples": run.recipe.calibration.samples,
            "distortion_samples": run.recipe.calibration.distortion_samples,
            "damping": run.recipe.calibration.damping,
        },
    )
    if not stage.done:
        offer = make_offer(
            subject.network,
            subject.calibration,
            levels,
            run.recipe.criterion,
            run.recipe.calibration.damping,
            run.recipe.calibration.distortion_samples,
        )
        _save_offer(offer, stage.folder)
        stage.finish(None)
    return _load_offer(stage.folder)


def allocation(latency: LatencyModel, offer: Offer) -> Problem:
    """The search problem: distortions of the offer, times of the latency model."""
    groups = []
    for name, alternatives in offer.alternatives.items():
        times = latency.unary_ms.get(name, {})
        time_ms = np.array([times.get(level, 0.0) for level in alternatives.levels])
        groups.append(Group(name, alternatives.levels, alternatives.distortion, time_ms))
    levels = {group.name: group.levels for group in groups}
    pairs = [
        Pair(a, b, np.array([[times[i, j] for j in levels[b]] for i in levels[a]]))
        for (a, b), times in latency.pair_ms.items()
    ]
    return Problem(tuple(groups), tuple(pairs), latency.base_ms)


def _listed(levels: Levels) -> dict[str, list[int]]:
    return {name: list(values) for name, values in levels.items()}


def _save_offer(offer: Offer, folder: Path) -> None:
    with atomic_path(folder / "grams.safetensors") as partial:
        save_file({name: gram.contiguous() for name, gram in offer.grams.items()}, partial)
    atomic_write_json(
        folder / "alternatives.json",
        [
            {
                "structure": a.structure,
                "levels": list(a.levels),
                "order": a.order.tolist(),
                "distortion": a.distortion.tolist(),
            }
            for a in offer.alternatives.values()
        ],
    )


def _load_offer(folder: Path) -> Offer:
    rows = json.loads((folder / "alternatives.json").read_text(encoding="utf-8"))
    alternatives = {
        row["structure"]: Alternatives(
            row["structure"],
            tuple(row["levels"]),
            np.array(row["order"], dtype=np.int64),
            np.array(row["distortion"], dtype=np.float64),
        )
        for row in rows
    }
    return Offer(alternatives, load_file(folder / "grams.safetensors"))

"""What the search chooses from: levels, their measured times, and their measured distortions."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from edgeprune import console
from edgeprune.atomic import atomic_path, atomic_write_json
from edgeprune.compression.alternatives import Alternatives, offered_choices
from edgeprune.compression.offer import Offer, make_offer
from edgeprune.graph.choices import Choices
from edgeprune.latency.model import FORMAT, LatencyModel
from edgeprune.latency.profiler import profile_network
from edgeprune.latency.store import open_table
from edgeprune.search.joint import JointProblem, with_terms
from edgeprune.search.problem import Group, Problem
from edgeprune.stages.run import Run, Subject


def choose(run: Run, subject: Subject) -> Choices:
    """The levels and formats to offer, by what the device likes and the recipe allows.

    Sparse formats are left out, with a line that says why, where their kernels cannot run.

    Raises:
        InputError: The model has none of the kinds of structures that the recipe offers.
    """
    recipe = run.recipe.search
    dense = tuple(family for family in recipe.formats if family in ("none", "int8"))
    # Asking may compile the operator, which only those who want it should wait for.
    if dense != recipe.formats and (reason := run.runtime.lacks_sparse()) is not None:
        console.warning(f"sparse formats are left out: {reason}")
        recipe = replace(recipe, formats=dense)
    return offered_choices(subject.network, run.target, recipe, run.recipe.structures)


def measure_latency(run: Run, subject: Subject, choices: Choices) -> LatencyModel:
    """The latency of every plan on the device, from the table or measured now."""
    stage = run.workspace.stage(
        "latency",
        {"model": subject.key, **_listed(choices), "device": run.fingerprint.key, "format": FORMAT},
    )
    if not stage.done:
        table = open_table(run.fingerprint)
        with console.progress(f"profiling on {run.target.name}") as bar:
            model = profile_network(
                subject.network,
                run.target,
                run.device,
                choices,
                table,
                stage.folder,
                lambda done, total, note: bar.update(done, total=total, note=note),
            )
        stage.finish(json.loads(model.to_json()))
    return replace(LatencyModel.from_json(json.dumps(stage.result)), forced=choices.forced)


def offer_alternatives(run: Run, subject: Subject, choices: Choices) -> Offer:
    """Order of removal, distortions and Gram matrices, from the run folder or made now."""
    stage = run.workspace.stage(
        "alternatives",
        {
            "model": subject.key,
            "task": run.task.key,
            "data": subject.data_key,
            **_listed(choices),
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
            choices,
            run.recipe.criterion,
            run.recipe.calibration.damping,
            run.recipe.calibration.distortion_samples,
        )
        _save_offer(offer, stage.folder)
        stage.finish(None)
    return _load_offer(stage.folder)


def allocation(latency: LatencyModel, offer: Offer) -> JointProblem:
    """The search problem: distortions of the offer, times of the latency model."""
    groups = [
        Group(name, a.levels, a.distortion, np.zeros(len(a.levels)))
        for name, a in offer.alternatives.items()
    ]
    for name, distortion in offer.formats.items():
        places = tuple(range(len(distortion)))
        groups.append(Group(name, places, distortion, np.zeros(len(places))))
    pairwise = with_terms(Problem(tuple(groups)), latency.terms)
    average = with_terms(pairwise, latency.approximated)
    names = {group.name for group in groups}
    problem = JointProblem(
        pairwise,
        latency.joint,
        average,
        named=frozenset(offer.formats),
        conversions=latency.conversions,
        fastest={n: level for n, level in latency.fastest_levels.items() if n in names},
    )
    return problem.restricted(latency.forced)


def _listed(choices: Choices) -> dict[str, Any]:
    """What is offered, as a stage's key holds it."""
    levels = {name: list(values) for name, values in choices.levels.items()}
    if not choices.sites:
        return {"levels": levels}
    options = {
        name: [" ".join(map(str, option)) for option in options]
        for name, options in choices.options.items()
    }
    return {"levels": levels, "formats": options}


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
    distortions = {name: values.tolist() for name, values in offer.formats.items()}
    atomic_write_json(folder / "formats.json", distortions)


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
    distortions = json.loads((folder / "formats.json").read_text(encoding="utf-8"))
    formats = {name: np.array(values, dtype=np.float64) for name, values in distortions.items()}
    return Offer(alternatives, load_file(folder / "grams.safetensors"), formats)

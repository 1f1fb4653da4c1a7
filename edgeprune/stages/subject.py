"""Capture the task's model and deal out its batches."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

import torch

from edgeprune import console
from edgeprune.compression.calibration import Batch, Calibration, deal, furthest_from
from edgeprune.compression.constraints import with_head_width
from edgeprune.errors import StructureError, TaskError
from edgeprune.graph.capture import Captured, capture
from edgeprune.graph.network import Network, analyse
from edgeprune.graph.structure import Frozen
from edgeprune.graph.weights import add_tensor, state_key
from edgeprune.latency.measure import save_inputs
from edgeprune.latency.signature import network_signature
from edgeprune.stages.deployed import as_arrays
from edgeprune.stages.run import Run, Subject
from edgeprune.workspace import key_of

# Samples that judge a candidate; those held back for the final fidelity are at least as many.
_SCORE_SHARE = 0.3
_LEAST_SCORE = 128
# Obstacles that one line names.
_MOST_NAMED = 3


def make_subject(run: Run) -> Subject:
    """Load the model, export it, find its structures, and deal out the batches.

    Raises:
        CaptureError: The model cannot be exported.
        TaskError: The task breaks its contract.
        StructureError: Nothing of the model can be removed.
    """
    recipe = run.recipe.calibration
    with console.progress("reading the model and its data", 3) as bar:
        model = run.task.model()
        examples = run.task.example_inputs()
        score = max(_LEAST_SCORE, int(_SCORE_SHARE * recipe.samples))
        calibration = deal(run.task.batches(), recipe.samples, score, recipe.held_back)
        wide = run.recipe.structures.head_width
        network = analysed(model, examples, calibration.fit, bar, wide)
    if not network.structures:
        raise StructureError(nothing_prunable(network.frozen))
    inputs = save_inputs(as_arrays(examples), run.folder / "inputs.npz")
    return Subject(network, calibration, inputs, model_key(model, network), data_key(calibration))


def analysed(
    model: torch.nn.Module,
    examples: Sequence[torch.Tensor],
    batches: Iterable[Batch],
    bar: console.Progress,
    head_width: Sequence[str] = (),
) -> Network:
    """The captured network with its structures; batches say which of its sizes vary.

    ``head_width`` are a recipe's patterns of heads that may be narrowed.

    Raises:
        CaptureError: The model cannot be exported.
        InputError: A pattern matches no heads.
        TaskError: The batches have sizes at which it does not run.
    """
    bar.advance(note="capturing")
    sample = furthest_from(examples, batches)
    captured = capture(model, examples, sample)
    refuse_other_sizes(captured, sample)
    bar.advance(note="finding structures")
    network, notes = with_head_width(analyse(captured), head_width)
    bar.advance()
    for note in [*captured.notes, *notes]:
        console.detail(note)
    return network


def model_key(model: torch.nn.Module, network: Network) -> str:
    """Of the weights, the graph, and the shapes and types it is deployed at."""
    shapes = [[list(x.shape), str(x.dtype)] for x in network.captured.example_inputs]
    return key_of(
        {"state": state_key(model), "graph": network_signature(network), "inputs": shapes}
    )


def data_key(calibration: Calibration) -> str:
    """SHA-256 of the batches, which no path in the task's settings need name."""
    digest = hashlib.sha256()
    for name in ("fit", "score", "held"):
        for index, batch in enumerate(getattr(calibration, name)):
            for position, tensor in enumerate(batch):
                add_tensor(digest, f"{name} {index} {position}", tensor)
    return digest.hexdigest()


def refuse_other_sizes(captured: Captured, batch: Batch | None) -> None:
    """Stop where the graph came out fixed to the deployed sizes and the task's batches have others.

    Raises:
        TaskError: Names the sizes, and why they are fixed.
    """
    if batch is None:
        return
    try:
        with torch.no_grad():
            captured.module(*batch)
    except RuntimeError as error:
        deployed = ", ".join(str(list(x.shape)) for x in captured.example_inputs)
        given = ", ".join(str(list(x.shape)) for x in batch)
        why = captured.notes[-1] if captured.notes else " ".join(str(error).split())[:200]
        raise TaskError(
            f"the model runs at {deployed} only, and batches() gives {given} ({why}); "
            "give batches of exactly the deployed sizes"
        ) from error


def nothing_prunable(frozen: Sequence[Frozen]) -> str:
    """One line on why nothing can be removed: the operators that froze most, then other causes."""
    causes = [cause for cause, _ in Counter(entry.cause for entry in frozen).most_common()]
    inside = [f"{operator} at {place} ({why})" for operator, place, why in causes if operator]
    reasons = inside + [why for operator, _, why in causes if not operator]
    found = "; ".join(reasons[:_MOST_NAMED]) or "it has no layer with weights"
    return f"nothing of this model can be removed: {found}"

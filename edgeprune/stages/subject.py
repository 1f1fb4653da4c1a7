"""Capture the task's model and deal out its batches."""

import hashlib

import torch

from edgeprune import console
from edgeprune.compression.calibration import deal
from edgeprune.errors import StructureError
from edgeprune.graph.capture import capture
from edgeprune.graph.network import analyse
from edgeprune.latency.measure import save_inputs
from edgeprune.stages.deployed import as_arrays
from edgeprune.stages.run import Run, Subject

# Samples that judge a candidate; those held back for the final fidelity are at least as many.
_SCORE_SHARE = 0.3
_LEAST_SCORE = 128


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
        bar.advance(note="capturing")
        sample = next((b for b in calibration.fit if len(b[0]) > 1), None)
        captured = capture(model, examples, sample)
        bar.advance(note="finding structures")
        network = analyse(captured)
        bar.advance()
    for note in captured.notes:
        console.detail(note)
    if not network.structures:
        raise StructureError(nothing_prunable(network.frozen))
    inputs = save_inputs(as_arrays(examples), run.folder / "inputs.npz")
    return Subject(network, calibration, inputs, model_key(model))


def model_key(model: torch.nn.Module) -> str:
    """SHA-256 of the model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def nothing_prunable(frozen: object) -> str:
    """One line on why nothing can be removed."""
    first = next(iter(frozen), None) if isinstance(frozen, tuple) else None
    why = f"; the first obstacle is {first.operator} at {first.source}" if first else ""
    return f"nothing of this model can be removed{why}; see edgeprune report for what froze"

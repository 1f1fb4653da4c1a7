"""A short program beside each artifact: it runs the model with the runtime alone and times it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgeprune.atomic import atomic_path, atomic_write_text
from edgeprune.latency.measure import save_inputs
from edgeprune.runtimes import CompileOptions, Runtime

PROGRAM = "run.py"
INPUTS = "inputs.npz"


def write_app_program(
    artifact: Path,
    inputs: Sequence[npt.NDArray[Any]],
    runtime: Runtime,
    options: CompileOptions,
    seconds: float = 5.0,
) -> Path:
    """Write ``run.py`` and ``inputs.npz`` beside an artifact.

    The program needs the runtime and numpy only. It fills the inputs once and times synchronous
    inferences one at a time, as edgeprune does, after a fifth of them as warm-up.

    Args:
        artifact: The file that the runtime opens.
        inputs: Example inputs in the order of the model's inputs.
        runtime: What runs it, and writes the program.
        options: How it is compiled.
        seconds: How long the program measures.

    Returns:
        The path of the program.
    """
    folder = artifact.parent
    with atomic_path(folder / INPUTS) as partial:
        save_inputs(inputs, partial)
    text = runtime.app_program(artifact, INPUTS, options, seconds)
    atomic_write_text(folder / PROGRAM, text)
    return folder / PROGRAM

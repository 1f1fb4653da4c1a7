"""A short program beside each artifact: it runs the model with the runtime alone and times it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgeprune.atomic import atomic_path, atomic_write_text
from edgeprune.errors import UnavailableError
from edgeprune.latency.measure import save_inputs

PROGRAM = "run.py"
INPUTS = "inputs.npz"

_OPENVINO = '''"""Runs {artifact} and prints its median latency. Needs openvino and numpy only."""

import time
from pathlib import Path

import numpy as np
import openvino as ov

folder = Path(__file__).parent
settings = {settings}
model = ov.Core().compile_model(folder / "{artifact}", "CPU", settings)
request = model.create_infer_request()
with np.load(folder / "{inputs}") as examples:
    for place in range(len(model.inputs)):
        request.get_input_tensor(place).data[:] = examples[str(place)]

times_ms = []
end = time.perf_counter() + {seconds}
while time.perf_counter() < end:
    start = time.perf_counter()
    request.infer()
    times_ms.append(1e3 * (time.perf_counter() - start))
outputs = [request.get_output_tensor(place).data for place in range(len(model.outputs))]
print("output shapes", [output.shape for output in outputs])
print(f"median {{np.median(times_ms[len(times_ms) // 5 :]):.3f}} ms")
'''


def write_app_program(
    folder: Path,
    artifact: str,
    inputs: Sequence[npt.NDArray[Any]],
    *,
    runtime: str,
    threads: int,
    precision: str = "default",
    seconds: float = 5.0,
) -> Path:
    """Write ``run.py`` and ``inputs.npz`` beside an artifact.

    The program needs the runtime and numpy only. It fills the inputs once and times synchronous
    inferences one at a time, as edgeprune does, after a fifth of them as warm-up.

    Args:
        folder: The artifact's folder.
        artifact: The file in it that the runtime opens.
        inputs: Example inputs in the order of the model's inputs.
        runtime: Name of the runtime.
        threads: Threads of one inference.
        precision: Inference precision; ``default`` is the runtime's choice.
        seconds: How long the program measures.

    Returns:
        The path of the program.

    Raises:
        UnavailableError: there is no program for that runtime.
    """
    if runtime != "openvino":
        raise UnavailableError(f"no app program for runtime '{runtime}'; use openvino")
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    if precision != "default":
        settings["INFERENCE_PRECISION_HINT"] = precision
    text = _OPENVINO.format(artifact=artifact, inputs=INPUTS, settings=settings, seconds=seconds)
    with atomic_path(folder / INPUTS) as partial:
        save_inputs(inputs, partial)
    atomic_write_text(folder / PROGRAM, text)
    return folder / PROGRAM

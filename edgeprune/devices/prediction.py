"""Outputs of an artifact on a device, as the function that a task's quality calls."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.devices import Device
from edgeprune.runtimes.base import Arrays
from edgeprune.target import Target

_TIMEOUT_S = 600.0
Predict = Callable[[Arrays], Arrays]


@contextmanager
def predictor(device: Device, target: Target, artifact: Path, inputs: Path) -> Iterator[Predict]:
    """A function from input arrays to the artifact's outputs on the device.

    Args:
        device: Where the artifact runs.
        target: Runtime, threads and precision.
        artifact: What the runtime opens.
        inputs: ``.npz`` of example inputs named 0, 1, ..., to open the artifact with.

    Raises:
        UnavailableError: The device failed.
        InputError: The artifact cannot be opened or does not take such inputs.
    """
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder, device.runner() as runner:
        asked, answered = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        options: dict[str, Any] = {
            "threads": target.threads,
            "precision": target.precision,
            "profile": False,
            "cache_dir": None,
        }
        runner.request(
            "load",
            timeout_s=_TIMEOUT_S,
            key="model",
            runtime_name=target.runtime,
            artifact=device.push(artifact),
            options=options,
            inputs=device.push(inputs),
        )

        def predict(arrays: Arrays) -> Arrays:
            with open(asked, "wb") as file:
                np.savez(file, allow_pickle=False, **_named(arrays))
            runner.request(
                "predict",
                timeout_s=_TIMEOUT_S,
                key="model",
                inputs=device.push(asked),
                outputs=str(answered),
            )
            with np.load(answered, allow_pickle=False) as archive:
                return tuple(archive[str(i)] for i in range(len(archive.files)))

        yield predict


def _named(arrays: Arrays) -> dict[str, Any]:
    return {str(place): value for place, value in enumerate(arrays)}

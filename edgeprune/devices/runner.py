"""The process that runs on the device: one JSON job a line in, one JSON answer a line out.

Started as ``python -m edgeprune.devices.runner``. It holds opened artifacts by a key the caller
chooses. Answers go to the original stdout; whatever libraries print goes to stderr.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from edgeprune.devices import machine
from edgeprune.errors import EdgepruneError, InputError
from edgeprune.runtimes import Session, runtime
from edgeprune.runtimes.base import Arrays, options_from_json

# The reference work: some 10 ms of products of few rows with 16 MB of weights, so that it feels
# neighbours who fill the last cache as a model does.
_REFERENCE_SHAPE = (16, 512, 512)
_REFERENCE_ROWS = 16
_REFERENCE_REPEATS = 4


class Jobs:
    """The jobs a runner knows; each method takes the fields of its request."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        size = int(np.prod(_REFERENCE_SHAPE))
        self._weights = np.linspace(-1, 1, size, dtype=np.float32).reshape(_REFERENCE_SHAPE)
        self._rows = self._weights[0, :_REFERENCE_ROWS].copy()

    def hello(self, runtime_name: str) -> dict[str, Any]:
        """What this machine and this runtime are."""
        backend = runtime(runtime_name)
        reason = backend.available()
        return {
            "unavailable": reason,
            "machine": machine.describe(),
            "versions": {} if reason else backend.versions(),
            "state": machine.state(),
        }

    def state(self) -> dict[str, Any]:
        """The machine's state now."""
        return machine.state()

    def load(
        self, key: str, runtime_name: str, artifact: str, options: dict[str, Any], inputs: str
    ) -> dict[str, Any]:
        """Open an artifact under ``key`` with the inputs of an ``.npz`` in place.

        An archive without arrays leaves it to the runtime to make inputs up.
        """
        begin = time.perf_counter()
        session = runtime(runtime_name).load(Path(artifact), options_from_json(options))
        try:
            session.set_inputs(_read_arrays(Path(inputs)) or session.made_up_inputs())
        except InputError as error:
            raise InputError(f"{artifact}: {error}") from error
        session.infer_once()
        self._sessions[key] = session
        return {"seconds": time.perf_counter() - begin}

    def unload(self, key: str) -> dict[str, Any]:
        """Close an artifact."""
        self._sessions.pop(key, None)
        return {}

    def time(self, key: str, warmup_ms: float, iterations: int) -> dict[str, Any]:
        """Latencies of single inferences in microseconds, after warming up.

        ``us`` is what a clock on the wall says, ``cpu_us`` the time the process had a processor.
        """
        session = self._session(key)
        clock, processor = time.perf_counter_ns, time.process_time_ns
        until = clock() + int(warmup_ms * 1e6)
        session.infer_once()
        while clock() < until:
            session.infer_once()
        wall, cpu = [], []
        for _ in range(iterations):
            used, begin = processor(), clock()
            session.infer_once()
            end = clock()
            wall.append((end - begin) / 1e3)
            cpu.append((processor() - used) / 1e3)
        return {"us": wall, "cpu_us": cpu}

    def layers(self, key: str, iterations: int) -> dict[str, Any]:
        """Run, then give the executed nodes with their mean times over these runs.

        ``disturbed`` is the wall's time over the processor's, to the number of threads.
        """
        session = self._session(key)
        session.infer_once()
        session.layer_times()
        used, begin = time.process_time(), time.perf_counter()
        for _ in range(iterations):
            session.infer_once()
        wall, used = time.perf_counter() - begin, time.process_time() - used
        return {
            "disturbed": wall / max(used, 1e-9),
            "layers": [
                {
                    "name": layer.name,
                    "type": layer.layer_type,
                    "exec": layer.exec_type,
                    "original": list(layer.original_names),
                    "shapes": [list(shape) for shape in layer.shapes],
                    "us": layer.us,
                }
                for layer in session.layer_times()
            ],
        }

    def predict(self, key: str, inputs: str, outputs: str) -> dict[str, Any]:
        """Outputs for the inputs of one ``.npz``, written to another."""
        arrays = self._session(key).run(_read_arrays(Path(inputs)))
        with open(outputs, "wb") as file:
            np.savez(file, allow_pickle=False, **{str(i): value for i, value in enumerate(arrays)})
        return {}

    def reference(self) -> dict[str, Any]:
        """Time in microseconds of a fixed piece of work that has nothing to do with any model."""
        begin = time.perf_counter_ns()
        for _ in range(_REFERENCE_REPEATS):
            for weight in self._weights:
                self._rows @ weight
        return {"us": (time.perf_counter_ns() - begin) / 1e3}

    def _session(self, key: str) -> Session:
        if key not in self._sessions:
            raise InputError(f"nothing is loaded under {key!r}")
        return self._sessions[key]


def serve(incoming: BinaryIO, outgoing: BinaryIO) -> None:
    """Answer jobs until the input ends."""
    jobs = Jobs()
    for line in incoming:
        try:
            request = json.loads(line)
            handler = getattr(jobs, str(request.pop("job")), None)
            if handler is None or handler.__name__.startswith("_"):
                raise InputError("unknown job")
            answer = {"result": handler(**request)}
        except EdgepruneError as error:
            answer = {"error": {"kind": type(error).__name__, "message": str(error)}}
        except Exception as error:  # the caller decides what a fault means
            answer = {"error": {"kind": "Fault", "message": f"{type(error).__name__}: {error}"}}
        outgoing.write(json.dumps(answer).encode() + b"\n")
        outgoing.flush()


def _read_arrays(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return tuple(archive[str(i)] for i in range(len(archive.files)))
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} does not hold input arrays named 0, 1, ...: {error}") from error


def main() -> None:
    """Serve on stdin and stdout, keeping stdout to answers alone."""
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, outgoing)


if __name__ == "__main__":
    main()

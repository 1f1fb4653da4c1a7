"""One runner process with opened artifacts, timed in short, randomly ordered, guarded rounds."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.devices import Device, Runner
from edgeprune.target import Target

LOAD_S = 600.0
# Drift of the reference work, relative to its best: marked above the first, repeated above the
# second.
_MARK = 1.05
_REPEAT = 1.10
_PAUSES_S = (0.1, 0.3, 0.9)
_MOST_REPEATS = 8
# The first inferences after a switch run 3 to 5% slow.
_LEAST_WARMUP_MS = 20.0
_MOST_WARMUP_MS = 250.0
_SETTLED = 1.03
_CALIBRATION_MS = 150.0
_WINDOW = 5
_FIRST = 5


@dataclass
class Round:
    """Samples of every artifact from one round.

    Attributes:
        samples_ms: Latencies by artifact, by the clock on the wall.
        cpu_ms: The same inferences by the processor time they used.
        drift: How much slower than at its best the reference work was around the round.
        repeats: How often the round was thrown away because of drift.
        process: Which runner process it ran in.
    """

    samples_ms: dict[str, list[float]]
    cpu_ms: dict[str, list[float]]
    drift: float
    repeats: int
    process: int = 0

    @property
    def drifted(self) -> bool:
        """Whether the reference work was more than 5% off."""
        return self.drift > _MARK

    def record(self, key: str) -> dict[str, Any]:
        """One artifact's samples for a table, to 10 ns: finer than the clock is steady."""
        return {
            "samples_ms": [round(ms, 5) for ms in self.samples_ms[key]],
            "cpu_ms": [round(ms, 5) for ms in self.cpu_ms[key]],
            "drift": round(self.drift, 3),
        }


@dataclass
class Pace:
    """How one artifact is timed, fixed by its calibration run.

    Attributes:
        warmup_ms: Inference before each series of samples.
        iterations: Samples in a series.
        typical_ms: Median latency of the calibration.
    """

    warmup_ms: float
    iterations: int
    typical_ms: float


@dataclass
class Stopwatch:
    """Times opened artifacts in one process. Use ``open_stopwatch``.

    Attributes:
        series_ms: Aimed length of one artifact's samples in a round.
    """

    device: Device
    target: Target
    runner: Runner
    inputs: str
    series_ms: float = 40.0
    cache_dir: str | None = None
    paces: dict[str, Pace] = field(default_factory=dict)
    _best_reference_us: float = float("inf")
    _repeats_left: int = _MOST_REPEATS

    def load(self, key: str, artifact: Path, *, profile: bool = False) -> float:
        """Open an artifact under a key; seconds it took on the device."""
        options = {
            "threads": self.target.threads,
            "precision": self.target.precision,
            "profile": profile,
            "cache_dir": self.cache_dir,
        }
        answer = self.runner.request(
            "load",
            timeout_s=LOAD_S,
            key=key,
            runtime_name=self.target.runtime,
            artifact=self.device.push(artifact),
            options=options,
            inputs=self.inputs,
        )
        return float(answer["seconds"])

    def unload(self, key: str) -> None:
        """Close an artifact."""
        self.runner.request("unload", timeout_s=LOAD_S, key=key)
        self.paces.pop(key, None)

    def typical_ms(self, key: str) -> float:
        """A first idea of an artifact's latency."""
        return max(float(np.median(self._samples_ms(key, 0.0, _FIRST)[0])), 1e-3)

    def calibrate(self, key: str, like: str | None = None) -> Pace:
        """Fix warm-up and number of samples of an artifact from one run.

        Args:
            key: The artifact.
            like: Another artifact whose warm-up is taken over, which saves most of the run.
        """
        if like is None:
            first = self.typical_ms(key)
            runs = _clip(_CALIBRATION_MS / first, 5, 400)
            samples = np.array(self._samples_ms(key, 0.0, runs)[0])
            typical = float(np.median(samples[len(samples) // 2 :]))
            warmup_ms = float(
                np.clip(1.5 * _settling_ms(samples, typical), _LEAST_WARMUP_MS, _MOST_WARMUP_MS)
            )
        else:
            typical, warmup_ms = self.typical_ms(key), self.paces[like].warmup_ms
        pace = Pace(warmup_ms, _clip(self.series_ms / typical, 5, 200), typical)
        self.paces[key] = pace
        return pace

    def layers(self, key: str, iterations: int) -> dict[str, Any]:
        """``layers``: executed nodes of an artifact opened with ``profile=True``; ``disturbed``:
        time on the wall over time on the processor meanwhile.
        """
        return self.runner.request("layers", timeout_s=LOAD_S, key=key, iterations=iterations)

    def round(self, keys: Sequence[str], order: np.random.Generator) -> Round:
        """One series of each artifact in random order, repeated while the machine drifts.

        After the last pause the round counts whatever the drift was, and says so; a machine that
        is never quiet is not waited for in every round.
        """
        for key in keys:
            if key not in self.paces:
                self.calibrate(key)
        repeats = 0
        while True:
            before = self._reference_us()
            wall, cpu = {}, {}
            for i in order.permutation(len(keys)):
                pace = self.paces[keys[i]]
                wall[keys[i]], cpu[keys[i]] = self._samples_ms(
                    keys[i], pace.warmup_ms, pace.iterations
                )
            drift = max(before, self._reference_us()) / self._best_reference_us
            if drift <= _REPEAT or repeats == len(_PAUSES_S) or self._repeats_left == 0:
                return Round(wall, cpu, drift, repeats)
            time.sleep(_PAUSES_S[repeats])
            repeats += 1
            self._repeats_left -= 1

    def state(self) -> dict[str, Any]:
        """Load, clocks and temperature of the device now."""
        return self.runner.request("state", timeout_s=LOAD_S)

    def _samples_ms(
        self, key: str, warmup_ms: float, iterations: int
    ) -> tuple[list[float], list[float]]:
        answer = self.runner.request(
            "time", timeout_s=LOAD_S, key=key, warmup_ms=warmup_ms, iterations=iterations
        )
        return [us / 1e3 for us in answer["us"]], [us / 1e3 for us in answer["cpu_us"]]

    def _reference_us(self) -> float:
        took = float(self.runner.request("reference", timeout_s=LOAD_S)["us"])
        self._best_reference_us = min(self._best_reference_us, took)
        return took


def _clip(value: float, least: int, most: int) -> int:
    return int(min(max(value, least), most))


def _settling_ms(samples: np.ndarray[Any, Any], late: float) -> float:
    """Time until a running median first comes within 3% of the later one."""
    for start in range(len(samples) - _WINDOW):
        if np.median(samples[start : start + _WINDOW]) <= _SETTLED * late:
            return float(samples[:start].sum())
    return float(samples.sum())


@contextlib.contextmanager
def open_stopwatch(
    device: Device,
    target: Target,
    inputs: Path,
    *,
    series_ms: float = 40.0,
    cache_dir: Path | None = None,
) -> Iterator[Stopwatch]:
    """A stopwatch in a fresh process of the device.

    Args:
        device: Where to measure.
        target: Runtime, threads and precision.
        inputs: ``.npz`` with the input arrays named 0, 1, ...
        series_ms: Aimed length of one artifact's samples in a round.
        cache_dir: Where the runtime may keep compiled models.
    """
    with device.runner() as runner:
        yield Stopwatch(
            device=device,
            target=target,
            runner=runner,
            inputs=device.push(inputs),
            series_ms=series_ms,
            cache_dir=None if cache_dir is None else device.push(cache_dir),
        )

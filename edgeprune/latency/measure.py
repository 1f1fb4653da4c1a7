"""Timing finished artifacts against each other: interleaved rounds, in one or several processes."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.devices import Device
from edgeprune.errors import InputError
from edgeprune.latency.statistics import LatencyStats, latency_stats, ratio_interval
from edgeprune.latency.stopwatch import Round, open_stopwatch
from edgeprune.target import Target

_FEWEST_ROUNDS = 6
# Without a single round there is nothing to say, whatever the clock says.
_FEWEST_ROUNDS_A_PROCESS = 2


@dataclass
class Measurement:
    """All rounds of one comparison; every sample is kept.

    Attributes:
        names: The artifacts that were timed.
        rounds: In the order they were taken.
        state: The device's state before and after, by process.
    """

    names: tuple[str, ...]
    rounds: list[Round] = field(default_factory=list)
    state: list[dict[str, Any]] = field(default_factory=list)

    def samples_ms(self, name: str) -> list[list[float]]:
        """Samples of one artifact, by round."""
        return [round_.samples_ms[name] for round_ in self.rounds]

    def stats(self, name: str) -> LatencyStats:
        """Median, tails and interval of one artifact."""
        return latency_stats(self.samples_ms(name))

    def ratio(self, first: str, second: str) -> tuple[float, float, float]:
        """``first / second`` with its 95% interval."""
        return ratio_interval(self.samples_ms(first), self.samples_ms(second))

    def joined(self, other: "Measurement") -> "Measurement":
        """Both comparisons of the same artifacts as one."""
        after = 1 + max((round_.process for round_ in self.rounds), default=-1)
        rounds = [replace(round_, process=after + round_.process) for round_ in other.rounds]
        return Measurement(self.names, self.rounds + rounds, self.state + other.state)

    @property
    def drifted_rounds(self) -> int:
        """Rounds around which the reference work was more than 5% off."""
        return sum(round_.drifted for round_ in self.rounds)

    def to_json(self) -> dict[str, Any]:
        """Everything, in terms of JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Measurement":
        """The measurement that `to_json` wrote."""
        rounds = [Round(**round_) for round_ in record["rounds"]]
        return cls(tuple(record["names"]), rounds, record["state"])


def save_inputs(inputs: Sequence[npt.NDArray[Any]], path: Path) -> Path:
    """Write input arrays as the ``.npz`` that devices read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, **{str(i): value for i, value in enumerate(inputs)})
    return path


def time_interleaved(
    device: Device,
    target: Target,
    artifacts: Mapping[str, Path],
    inputs: Path,
    *,
    seconds: float = 10.0,
    processes: int = 1,
    least_samples: int = 0,
    seed: int = 0,
    cache_dir: Path | None = None,
    on_round: Callable[[float], None] | None = None,
) -> Measurement:
    """Time artifacts in random order within short rounds, each process a fresh one.

    Args:
        device: Where to measure.
        target: Runtime, threads and precision.
        artifacts: What to time, by name.
        inputs: ``.npz`` with the arrays named 0, 1, ...
        seconds: Time for measuring in all, opening aside; at least six rounds are taken.
        processes: Fresh processes over which the rounds are spread.
        least_samples: Go on until every artifact has this many.
        seed: Of the order within rounds.
        cache_dir: Where the runtime may keep compiled models.
        on_round: Called after each round with the share done (0 to 1).

    Raises:
        InputError: No artifact was given, or one cannot be opened with these inputs.
        UnavailableError: The device failed.
    """
    if not artifacts:
        raise InputError("nothing to time: give at least one artifact")
    order = np.random.default_rng(seed)
    measurement = Measurement(tuple(artifacts))
    for process in range(processes):
        share = (process + 1) / processes
        with open_stopwatch(device, target, inputs, cache_dir=cache_dir) as watch:
            keys = [str(key) for key in order.permutation(list(artifacts))]
            for key in keys:
                watch.load(key, Path(artifacts[key]))
            for key in keys:
                watch.calibrate(key)
            measurement.state.append(watch.state())
            begin = time.monotonic()
            taken = 0
            while (
                time.monotonic() - begin < seconds / processes
                or taken < _FEWEST_ROUNDS_A_PROCESS
                or len(measurement.rounds) < _FEWEST_ROUNDS * share
                or _samples(measurement) < least_samples * share
            ):
                round_ = watch.round(list(artifacts), order)
                round_.process = process
                measurement.rounds.append(round_)
                taken += 1
                if on_round is not None:
                    used = min(1.0, (time.monotonic() - begin) * processes / max(seconds, 1e-9))
                    on_round((process + used) / processes)
            measurement.state.append(watch.state())
    return measurement


def _samples(measurement: Measurement) -> int:
    """Samples of the artifact that has fewest."""
    return min(
        sum(len(samples) for samples in measurement.samples_ms(name)) for name in measurement.names
    )

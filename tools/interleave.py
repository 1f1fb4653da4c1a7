"""Times several calls side by side, for benchmarks."""

import random
import time
from collections.abc import Callable, Mapping

import numpy as np

# Runs something that often, and says how many microseconds one run took on average.
Timed = Callable[[int], float]


def wall_us(call: Callable[[], object]) -> Timed:
    """A call, timed by the clock."""

    def timed(repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return 1e6 * (time.perf_counter() - start) / repeats

    return timed


def medians_us(
    calls: Mapping[str, Timed], rounds: int, before: Callable[[], object] | None = None
) -> dict[str, float]:
    """Median time of each call in microseconds.

    In each round every call is timed once, in random order, as the mean of as many repetitions as
    take about three milliseconds; after one that is not timed, because what ran before left the
    caches to itself. With ``before``, each timed repetition stands alone behind a call of it.
    """
    repeats = {name: _repeats(call) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            if before is None:
                calls[name](1)
                samples[name].append(calls[name](repeats[name]))
            else:
                before()
                samples[name].append(calls[name](1))
    return {name: float(np.median(values)) for name, values in samples.items()}


def _repeats(call: Timed) -> int:
    call(1)
    return max(1, int(3000 / max(call(3), 1.0)))

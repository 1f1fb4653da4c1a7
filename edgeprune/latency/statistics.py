"""Figures drawn from latency samples: medians with bootstrap intervals, tails, ratios."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_RESAMPLES = 1000
_LEVEL = 95.0

Rounds = Sequence[Sequence[float]]


@dataclass(frozen=True)
class LatencyStats:
    """A latency in milliseconds.

    Attributes:
        median: Median of all samples.
        p90: 90th percentile.
        p95: 95th percentile.
        ci95: Bootstrap interval of the median, resampling whole rounds.
        low: 20th percentile, which is steady on a machine with other work.
        samples: How many samples there are.
        rounds: In how many rounds they were taken.
    """

    median: float
    p90: float
    p95: float
    ci95: tuple[float, float]
    low: float
    samples: int
    rounds: int

    def to_json(self) -> dict[str, Any]:
        """Fields as JSON values."""
        return {**asdict(self), "ci95": list(self.ci95)}


def latency_stats(rounds_ms: Rounds, seed: int = 0) -> LatencyStats:
    """Statistics of samples in milliseconds that came in rounds.

    Samples of one round share their disturbances, so the interval comes from resampling rounds
    (the cluster bootstrap; Davison and Hinkley 1997, section 3.8).

    Raises:
        ValueError: There is no sample.
    """
    filled = [np.asarray(values, float) for values in rounds_ms if len(values)]
    if not filled:
        raise ValueError("no samples")
    pooled = np.concatenate(filled)
    medians = _bootstrap([filled], lambda picked: float(np.median(picked[0])), seed)
    lo, hi = _interval(medians)
    p20, p50, p90, p95 = np.percentile(pooled, [20, 50, 90, 95])
    return LatencyStats(
        median=float(p50),
        p90=float(p90),
        p95=float(p95),
        ci95=(min(lo, float(p50)), max(hi, float(p50))),
        low=float(p20),
        samples=len(pooled),
        rounds=len(filled),
    )


def ratio_interval(
    first: Rounds, second: Rounds, *, percentile: float = 50.0, seed: int = 0
) -> tuple[float, float, float]:
    """Ratio ``first / second`` of a percentile (the median) with its 95% interval.

    Both were measured in the same rounds; the rounds are resampled together, so what slowed a
    whole round down cancels.
    """
    a = [np.asarray(values, float) for values in first]
    b = [np.asarray(values, float) for values in second]

    def ratio(picked: Sequence[npt.NDArray[Any]]) -> float:
        above, below = (np.percentile(samples, percentile) for samples in picked)
        return float(above / below)

    middle = ratio([np.concatenate(a), np.concatenate(b)])
    lo, hi = _interval(_bootstrap([a, b], ratio, seed))
    return middle, min(lo, middle), max(hi, middle)


def _bootstrap(series: Sequence[Sequence[npt.NDArray[Any]]], figure: Any, seed: int) -> list[float]:
    """``figure`` of the pooled samples for many draws of rounds with replacement."""
    random = np.random.default_rng(seed)
    count = len(series[0])
    figures = []
    for _ in range(_RESAMPLES):
        drawn = random.integers(0, count, count)
        figures.append(figure([np.concatenate([rounds[i] for i in drawn]) for rounds in series]))
    return figures


def _interval(figures: Sequence[float]) -> tuple[float, float]:
    tail = (100 - _LEVEL) / 2
    lo, hi = np.percentile(figures, [tail, 100 - tail])
    return float(lo), float(hi)

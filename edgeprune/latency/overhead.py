"""What an inference takes besides the layers that a profile shows.

There is a fixed part, and what each call of our own operators takes outside of the counters. A
whole-model time is both and the layers' sum times a factor; errors are relative, so small variants
decide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeprune.latency.attribution import Part
from edgeprune.latency.profiled_variant import DENSE_FAMILIES, Variant
from edgeprune.latency.signature import Bucket

# Of the fastest variant's time, as much as can be fixed.
_MOST_FIXED = 0.9
# Of a layer's call; a fit to noisy times may say anything.
_MOST_CALL_US = 5.0


@dataclass(frozen=True)
class Overhead:
    """Time besides the layers.

    Attributes:
        fixed_us: Of an inference.
        call_us: Of each part that our own operators run.
    """

    fixed_us: float
    call_us: float


def scaled(parts: Sequence[Part], variant: Variant, overhead: Overhead) -> Variant:
    """The variant with profiles that add up to the whole-model time without the fixed overhead.

    Only shares are taken from a profile: what slows a machine down while it profiles falls on all
    parts alike.
    """
    calls = _called(parts, variant)
    rest_us = max(variant.total_us - overhead.fixed_us - overhead.call_us * len(calls), 0.0)
    shares = [rest_us / max(_layers_us(*timed), 1e-9) for timed in variant.timed]
    return replace(
        variant,
        profiles=tuple(
            {b: us * share + overhead.call_us * (b in calls) for b, us in profile.items()}
            for share, profile in zip(shares, variant.profiles, strict=True)
        ),
        conversions=tuple(
            {site: us * share for site, us in converted.items()}
            for share, (_, converted) in zip(shares, variant.timed, strict=True)
        ),
    )


def fit_overhead(parts: Sequence[Part], variants: Sequence[Variant]) -> Overhead:
    """The overhead that explains the whole-model times of variants best."""
    from scipy.optimize import nnls

    whole = np.array([variant.total_us for variant in variants])
    layers = np.array([np.median([_layers_us(*timed) for timed in v.timed]) for v in variants])
    calls = np.array([len(_called(parts, variant)) for variant in variants])
    columns = np.column_stack([np.ones(len(whole)), calls, layers]) / whole[:, None]
    (fixed_us, call_us, _), _ = nnls(columns, np.ones(len(whole)))
    return Overhead(
        fixed_us=float(min(fixed_us, _MOST_FIXED * whole.min())),
        call_us=float(min(call_us, _MOST_CALL_US)),
    )


def _called(parts: Sequence[Part], variant: Variant) -> set[Bucket]:
    """The parts that our own operators run in a variant."""
    standing = (part for part in parts if not variant.gone(part))
    return {
        part.bucket
        for part in standing
        if variant.profiles[0].get(part.bucket, 0.0) > 0
        and variant.kind(part)[1] not in DENSE_FAMILIES
    }


def _layers_us(parts: Mapping[Bucket, float], conversions: Mapping[str, float]) -> float:
    return sum(parts.values()) + sum(conversions.values())

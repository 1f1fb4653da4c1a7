"""From the measured variants of a network to its latency model."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprune.latency.attribution import Part
from edgeprune.latency.correction import fit_correction
from edgeprune.latency.model import LatencyModel
from edgeprune.latency.signature import Bucket
from edgeprune.latency.surface import Surface, fit_surface
from edgeprune.latency.tabulation import Tabulation

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Variant:
    """A measured variant.

    Attributes:
        levels: Level of every structure.
        profiles: Repeated per-layer profiles, in microseconds by bucket.
        total_us: Unprofiled time of the whole model.
    """

    levels: dict[str, int]
    profiles: tuple[dict[Bucket, float], ...]
    total_us: float


def fit_model(
    parts: Sequence[Part],
    variants: Sequence[Variant],
    offered: Mapping[str, tuple[int, ...]],
    alike: Mapping[str, str],
    full: Mapping[str, int],
) -> LatencyModel:
    """Fit the time of every part, correct to whole-model times, and tabulate over levels.

    Args:
        parts: All buckets of the network.
        variants: At least the dense model and a few others.
        offered: Levels that the model shall know.
        alike: Structures with equal values share what emptying one costs.
        full: Dense level of every structure.
    """
    surfaces = _fit_surfaces(parts, variants)
    kinds = list(surfaces)
    kind_us = np.zeros((len(variants), len(kinds)))
    for part in parts:
        sizes = np.array([part.sizes(v.levels) for v in variants], np.int64)
        us = surfaces[part.kind].predict(sizes.reshape(len(variants), -1))
        kind_us[:, kinds.index(part.kind)] += us
    groups = sorted({alike[name] for name, levels in offered.items() if 0 in levels})
    emptied = _count_emptied(variants, offered, alike, groups)
    total_us = np.array([variant.total_us for variant in variants])
    correction = fit_correction(kind_us, emptied, total_us)
    scales = dict(zip(kinds, 1 + correction.kinds, strict=True))
    tabulation = Tabulation(offered, full)
    for part in parts:
        tabulation.add(part, surfaces[part.kind], scales[part.kind])
    for name, levels in offered.items():
        if 0 in levels:
            tabulation.add_emptied(name, correction.emptied_us[groups.index(alike[name])])
    c, a, b = correction.quadratic
    model = tabulation.model((c / 1e3, a, b * 1e3))
    model.figures.update(_figures(model, variants, correction.left_out))
    model.figures["pairwise_error_us"] = tabulation.error_us
    return model


def _fit_surfaces(parts: Sequence[Part], variants: Sequence[Variant]) -> dict[str, Surface]:
    """A surface for every kind of part, from the samples of all parts of that kind."""
    sizes: dict[str, list[list[int]]] = defaultdict(list)
    times: dict[str, list[float]] = defaultdict(list)
    for variant in variants:
        shared = _whole_times(variant)
        for part in parts:
            sizes[part.kind].append(part.sizes(variant.levels))
            times[part.kind].append(shared.get(part.bucket, 0.0))
    return {
        kind: fit_surface(np.array(sizes[kind], np.int64), np.array(times[kind])) for kind in sizes
    }


def _whole_times(variant: Variant) -> dict[Bucket, float]:
    """The whole time dealt out by the profiles' shares.

    Only shares are taken from a profile, so one taken while the machine was slow counts as well.
    """
    scaled = []
    for profile in variant.profiles:
        factor = variant.total_us / max(sum(profile.values()), 1e-9)
        scaled.append({bucket: us * factor for bucket, us in profile.items()})
    buckets = {bucket for profile in scaled for bucket in profile}
    return {
        bucket: float(np.median([profile.get(bucket, 0.0) for profile in scaled]))
        for bucket in buckets
    }


def _count_emptied(
    variants: Sequence[Variant],
    offered: Mapping[str, tuple[int, ...]],
    alike: Mapping[str, str],
    groups: Sequence[str],
) -> Floats:
    counts = np.zeros((len(variants), len(groups)))
    for row, variant in enumerate(variants):
        for name, levels in offered.items():
            if 0 in levels and variant.levels[name] == 0:
                counts[row, groups.index(alike[name])] += 1
    return counts


def _figures(
    model: LatencyModel, variants: Sequence[Variant], left_out: Floats
) -> dict[str, float | int | None]:
    """How far the model is off at the variants, relative to their times."""
    known = [variant for variant in variants if _knows(model, variant.levels)]
    errors = [abs(model.total_ms(v.levels) * 1e3 / v.total_us - 1) for v in known]
    return {
        "variants": len(variants),
        "fit_error_median": float(np.median(errors)) if errors else None,
        "fit_error_worst": float(np.max(errors)) if errors else None,
        "left_out_error_median": float(np.median(left_out)),
        "left_out_error_worst": float(np.max(left_out)),
    }


def _knows(model: LatencyModel, levels: Mapping[str, int]) -> bool:
    return all(
        levels[name] in model.unary_ms[name] if name in model.unary_ms else levels[name] == full
        for name, full in model.full.items()
    )

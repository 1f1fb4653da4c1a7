"""From the measured variants of a network to its latency model."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgeprune.latency.attribution import Part
from edgeprune.latency.correction import CorrectedSurface, fit_correction
from edgeprune.latency.model import LatencyModel
from edgeprune.latency.signature import Bucket
from edgeprune.latency.surface import Surface, fit_surface
from edgeprune.latency.tabulation import Tabulation

Floats = npt.NDArray[np.float64]

# Relative error of a part's time in one profile, and what disturbance adds to it.
_PROFILE_NOISE = 0.03
_DISTURBED_NOISE = 0.3


@dataclass(frozen=True)
class Variant:
    """A measured variant.

    Attributes:
        levels: Level of every structure.
        profiles: Repeated per-layer profiles, in microseconds by bucket.
        disturbed: Of each profile, time on the wall over time on the processor.
        total_us: Unprofiled time of the whole model.
    """

    levels: dict[str, int]
    profiles: tuple[dict[Bucket, float], ...]
    disturbed: tuple[float, ...]
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
    surfaces = fit_surfaces(parts, variants)
    kinds = list(surfaces)
    plain = {part.kind: CorrectedSurface(surfaces[part.kind], _most(part, full)) for part in parts}
    kind_terms = np.zeros((len(variants), len(kinds), 3))
    for part in parts:
        sizes = np.array([part.sizes(v.levels) for v in variants], np.int64)
        terms = plain[part.kind].terms(sizes.reshape(len(variants), -1))
        kind_terms[:, kinds.index(part.kind)] += np.stack(terms, axis=1)
    typical_us = np.array([plain[kind].predict(np.array([plain[kind].most]))[0] for kind in kinds])
    groups = sorted({alike[name] for name, levels in offered.items() if 0 in levels})
    emptied = _count_emptied(variants, offered, alike, groups)
    cells, counts = _count_cells(parts, variants)
    total_us = np.array([variant.total_us for variant in variants])
    correction = fit_correction(kind_terms, typical_us, emptied, counts, total_us)
    hidden_us: dict[str, dict[tuple[int, ...], float]] = defaultdict(dict)
    for (kind, cell), us in zip(cells, correction.hidden_us, strict=True):
        hidden_us[kind][cell] = float(us)
    tabulation = Tabulation(offered, full)
    for part in parts:
        scale, fixed_us, slope_us = correction.terms[kinds.index(part.kind)]
        surface = replace(
            plain[part.kind],
            scale=1 + scale,
            fixed_us=fixed_us,
            slope_us=slope_us,
            hidden_us=hidden_us[part.kind],
        )
        tabulation.add(part, surface)
    for name, levels in offered.items():
        if 0 in levels:
            tabulation.add_emptied(name, correction.emptied_us[groups.index(alike[name])])
    c, a, b = correction.quadratic
    model = tabulation.model((c / 1e3, a, b * 1e3))
    model.figures.update(_figures(model, variants, correction.left_out))
    model.figures["pairwise_error_us"] = tabulation.error_us
    strength, hidden = correction.strength
    model.figures.update(correction_strength=strength, correction_hidden_us=hidden)
    dense = [variant.total_us / 1e3 for variant in variants if variant.levels == dict(full)]
    return replace(model, measured_dense_ms=dense[0]) if dense else model


def _most(part: Part, full: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(part.sizes(full))


def fit_surfaces(parts: Sequence[Part], variants: Sequence[Variant]) -> dict[str, Surface]:
    """A surface for every kind of part, from the profiles of all parts of that kind.

    Only shares are taken from a profile, and dealt out of the unprofiled time of the whole: what
    slows a machine down while it profiles falls on all parts alike.
    """
    rows = [(variant, profile) for variant in variants for profile in variant.profiles]
    disturbed = np.array([value for variant in variants for value in variant.disturbed])
    noise = _PROFILE_NOISE + _DISTURBED_NOISE * np.maximum(disturbed - 1, 0)
    members: dict[str, list[Part]] = defaultdict(list)
    for part in parts:
        members[part.kind].append(part)
    surfaces = {}
    for kind, alike in members.items():
        sizes = [part.sizes(variant.levels) for variant, _ in rows for part in alike]
        times = [
            profile.get(part.bucket, 0.0) * variant.total_us / max(sum(profile.values()), 1e-9)
            for variant, profile in rows
            for part in alike
        ]
        surfaces[kind] = fit_surface(
            np.array(sizes, np.int64).reshape(len(times), -1),
            np.array(times),
            np.repeat(noise, len(alike)),
        )
    return surfaces


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


def _count_cells(
    parts: Sequence[Part], variants: Sequence[Variant]
) -> tuple[list[tuple[str, tuple[int, ...]]], Floats]:
    """Kinds with the sizes they have in any variant, and how many such parts each variant has."""
    counts = Counter(
        (row, part.kind, tuple(sizes))
        for row, variant in enumerate(variants)
        for part in parts
        for sizes in (part.sizes(variant.levels),)
        if sizes and min(sizes) > 0
    )
    cells = sorted({(kind, sizes) for _, kind, sizes in counts})
    matrix = np.array([[counts[row, *cell] for cell in cells] for row in range(len(variants))])
    return cells, matrix.astype(np.float64).reshape(len(variants), len(cells))


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

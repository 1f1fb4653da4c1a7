"""From the measured variants of a network to its latency model."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edgeprune.formats import DENSE, DENSE_INT8, Format, Formats
from edgeprune.graph.choices import Choices
from edgeprune.latency.attribution import Part
from edgeprune.latency.correction import CorrectedSurface, fit_correction
from edgeprune.latency.handover import Handovers, fit_handovers, handover_us
from edgeprune.latency.model import LatencyModel
from edgeprune.latency.signature import Bucket
from edgeprune.latency.surface import Surface, fit_surface
from edgeprune.latency.tabulation import Tabulation

Floats = npt.NDArray[np.float64]
# A kind of part, and the family of formats that its layers have.
Kind = tuple[str, str]

# Relative error of a part's time in one profile, and what disturbance adds to it.
_PROFILE_NOISE = 0.03
_DISTURBED_NOISE = 0.3
_DENSE_FAMILIES = frozenset({DENSE.family, DENSE_INT8.family})
# Of a sparse part's weights, in the sizes that its terms are relative to.
_TYPICAL_DENSITY = 0.3


@dataclass(frozen=True)
class Variant:
    """A measured variant.

    Attributes:
        levels: Level of every structure.
        profiles: Repeated per-layer profiles, in microseconds by bucket.
        disturbed: Of each profile, time on the wall over time on the processor.
        total_us: Unprofiled time of the whole model.
        formats: Of the layers that are not dense.
        conversions: Of each profile, microseconds by the site that they were for.
    """

    levels: dict[str, int]
    profiles: tuple[dict[Bucket, float], ...]
    disturbed: tuple[float, ...]
    total_us: float
    formats: Formats = field(default_factory=dict)
    conversions: tuple[dict[str, float], ...] = ()

    @property
    def timed(self) -> tuple[tuple[dict[Bucket, float], dict[str, float]], ...]:
        """Each profile with its conversions."""
        conversions = self.conversions or ({},) * len(self.profiles)
        return tuple(zip(self.profiles, conversions, strict=True))

    def kind(self, part: Part) -> Kind:
        """The kind of a part in this variant."""
        return part.kind, part.family(self.formats)

    def sizes(self, part: Part) -> list[int]:
        """The sizes of a part in this variant."""
        return part.sizes(self.levels, self.formats)


def fit_model(
    parts: Sequence[Part],
    handovers: Handovers,
    variants: Sequence[Variant],
    choices: Choices,
    alike: Mapping[str, str],
    full: Mapping[str, int],
) -> LatencyModel:
    """Fit the time of every part, correct to whole-model times, and tabulate over the choices.

    Args:
        parts: All buckets of the network.
        handovers: What its sites read.
        variants: At least the dense model and a few others.
        choices: What the model shall know.
        alike: Structures with equal values share what emptying one costs.
        full: Dense level of every structure.
    """
    offered = choices.levels
    surfaces = fit_surfaces(parts, variants)
    kinds = list(surfaces)
    plain = _plain(parts, surfaces, full)
    converting = fit_handovers(
        handovers,
        [v.levels for v in variants],
        [v.formats for v in variants],
        [_scaled_conversions(v) for v in variants],
    )
    kind_terms = _kind_terms(parts, variants, plain)
    typical_us = np.array([plain[kind].predict(np.array([plain[kind].most]))[0] for kind in kinds])
    conversions_us = np.array(
        [handover_us(handovers, converting, v.levels, v.formats) for v in variants]
    )
    groups = sorted({alike[name] for name, levels in offered.items() if 0 in levels})
    emptied = _count_emptied(variants, offered, alike, groups)
    cells, counts = _count_cells(parts, variants)
    total_us = np.array([variant.total_us for variant in variants])
    correction = fit_correction(kind_terms, typical_us, emptied, counts, total_us, conversions_us)
    hidden_us: dict[Kind, dict[tuple[int, ...], float]] = defaultdict(dict)
    for (kind, cell), us in zip(cells, correction.hidden_us, strict=True):
        hidden_us[kind][cell] = float(us)
    corrected = {}
    for kind, (scale, fixed_us, slope_us) in zip(kinds, correction.terms, strict=True):
        corrected[kind] = replace(
            plain[kind],
            scale=1 + scale,
            fixed_us=fixed_us,
            slope_us=slope_us,
            hidden_us=hidden_us[kind],
        )
    tabulation = Tabulation(choices, full)
    for part in parts:
        tabulation.add(part, {f: s for (kind, f), s in corrected.items() if kind == part.kind})
    tabulation.add_handovers(handovers, converting)
    for name, levels in offered.items():
        if 0 in levels:
            tabulation.add_emptied(name, correction.emptied_us[groups.index(alike[name])])
    c, a, b = correction.quadratic
    model = tabulation.model((c / 1e3, a, b * 1e3))
    model.figures.update(_figures(model, variants, choices, correction.left_out))
    model.figures["pairwise_error_us"] = tabulation.error_us
    strength, hidden = correction.strength
    model.figures.update(correction_strength=strength, correction_hidden_us=hidden)
    dense = [v.total_us / 1e3 for v in variants if v.levels == dict(full) and not v.formats]
    return replace(model, measured_dense_ms=dense[0]) if dense else model


def _plain(
    parts: Sequence[Part], surfaces: Mapping[Kind, Surface], full: Mapping[str, int]
) -> dict[Kind, CorrectedSurface]:
    """The surfaces without corrections."""
    of_kind = {part.kind: part for part in reversed(parts)}
    return {
        (kind, family): CorrectedSurface(surface, _most(of_kind[kind], family, full))
        for (kind, family), surface in surfaces.items()
    }


def _most(part: Part, family: str, full: Mapping[str, int]) -> tuple[int, ...]:
    if family in _DENSE_FAMILIES:
        return tuple(part.sizes(full))
    typical = Format("f32", (1, 1), 1 - _TYPICAL_DENSITY)
    return tuple(part.sizes(full, {weight.layer: typical for weight in part.weights}))


def _kind_terms(
    parts: Sequence[Part], variants: Sequence[Variant], plain: Mapping[Kind, CorrectedSurface]
) -> Floats:
    """Shape (variants, kinds, 3): ``CorrectedSurface.terms``, summed over the parts."""
    place = {kind: number for number, kind in enumerate(plain)}
    total = np.zeros((len(variants), len(plain), 3))
    for part in parts:
        rows: dict[Kind, list[int]] = defaultdict(list)
        for row, variant in enumerate(variants):
            rows[variant.kind(part)].append(row)
        for kind, chosen in rows.items():
            sizes = np.array([variants[row].sizes(part) for row in chosen], np.int64)
            terms = plain[kind].terms(sizes.reshape(len(chosen), -1))
            total[chosen, place[kind]] += np.stack(terms, axis=1)
    return total


def fit_surfaces(parts: Sequence[Part], variants: Sequence[Variant]) -> dict[Kind, Surface]:
    """A surface for every kind of part and family of formats, from all parts of that kind.

    Only shares are taken from a profile, and dealt out of the unprofiled time of the whole: what
    slows a machine down while it profiles falls on all parts alike.
    """
    samples: dict[Kind, list[tuple[list[int], float, float]]] = defaultdict(list)
    for variant in variants:
        for profile, share, disturbed in zip(
            variant.profiles, _shares(variant), variant.disturbed, strict=True
        ):
            noise = _PROFILE_NOISE + _DISTURBED_NOISE * max(disturbed - 1, 0)
            for part in parts:
                us = profile.get(part.bucket, 0.0) * share
                samples[variant.kind(part)].append((variant.sizes(part), us, noise))
    surfaces = {}
    for kind, rows in samples.items():
        sizes, times, noises = zip(*rows, strict=True)
        surfaces[kind] = fit_surface(
            np.array(sizes, np.int64).reshape(len(rows), -1),
            np.array(times),
            np.array(noises),
            stepped=kind[1] in _DENSE_FAMILIES,
        )
    return surfaces


def _scaled_conversions(variant: Variant) -> list[dict[str, float]]:
    """Conversions of each profile as shares of the unprofiled time, as those of parts are."""
    return [
        {site: us * share for site, us in converted.items()}
        for share, (_, converted) in zip(_shares(variant), variant.timed, strict=True)
    ]


def _shares(variant: Variant) -> list[float]:
    """What to multiply the times of each profile by, so that they add up to the whole's."""
    measured = [sum(parts.values()) + sum(rest.values()) for parts, rest in variant.timed]
    return [variant.total_us / max(us, 1e-9) for us in measured]


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
) -> tuple[list[tuple[Kind, tuple[int, ...]]], Floats]:
    """Dense kinds with the sizes they have in any variant, and how many each variant has."""
    counts = Counter(
        (row, kind, tuple(sizes))
        for row, variant in enumerate(variants)
        for part in parts
        for kind, sizes in ((variant.kind(part), variant.sizes(part)),)
        if sizes and min(sizes) > 0 and kind[1] in _DENSE_FAMILIES
    )
    cells = sorted({(kind, sizes) for _, kind, sizes in counts})
    matrix = np.array([[counts[row, *cell] for cell in cells] for row in range(len(variants))])
    return cells, matrix.astype(np.float64).reshape(len(variants), len(cells))


def _figures(
    model: LatencyModel, variants: Sequence[Variant], choices: Choices, left_out: Floats
) -> dict[str, float | int | None]:
    """How far the model is off at the variants, relative to their times."""
    errors = []
    for variant in variants:
        plan = _plan(model, variant, choices)
        if plan is not None:
            errors.append(abs(model.total_ms(plan) * 1e3 / variant.total_us - 1))
    return {
        "variants": len(variants),
        "fit_error_median": float(np.median(errors)) if errors else None,
        "fit_error_worst": float(np.max(errors)) if errors else None,
        "left_out_error_median": float(np.median(left_out)),
        "left_out_error_worst": float(np.max(left_out)),
    }


def _plan(model: LatencyModel, variant: Variant, choices: Choices) -> dict[str, int] | None:
    """A variant in terms of the choices, or None where the model does not know it."""
    places = {name: choices.place(name, variant.formats) for name in choices.sites}
    plan = {**variant.levels, **{name: p for name, p in places.items() if p is not None}}
    covered = {layer for site in choices.sites.values() for layer in site.layers}
    if None in places.values() or not covered.issuperset(variant.formats):
        return None
    for name, full in model.full.items():
        known = model.unary_ms.get(name)
        if plan[name] not in known if known is not None else plan[name] != full:
            return None
    return plan

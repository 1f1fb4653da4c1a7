"""From the measured variants of a network to its latency model."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgeprune.formats import Format
from edgeprune.graph.choices import Choices
from edgeprune.latency.attribution import Part
from edgeprune.latency.context import fit_in_context
from edgeprune.latency.correction import CorrectedSurface, Correction, fit_correction
from edgeprune.latency.handover import Handovers, fit_handovers, handover_us
from edgeprune.latency.model import LatencyModel
from edgeprune.latency.overhead import fit_overhead, scaled
from edgeprune.latency.part_surfaces import part_us
from edgeprune.latency.profiled_variant import DENSE_FAMILIES, Kind, Variant
from edgeprune.latency.surface import Surface
from edgeprune.latency.tabulation import Tabulation

Floats = npt.NDArray[np.float64]
# Of a sparse part's weights, in the sizes that its terms are relative to.
_TYPICAL_DENSITY = 0.3


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
    overhead = fit_overhead(parts, variants)
    variants = [scaled(parts, variant, overhead) for variant in variants]
    surfaces, variants = fit_in_context(parts, handovers, variants)
    plain = _plain(parts, surfaces, full)
    converting = fit_handovers(
        handovers,
        [v.levels for v in variants],
        [v.formats for v in variants],
        [v.conversions for v in variants],
    )
    kind_terms = _kind_terms(parts, variants, plain)
    typical_us = np.array([s.predict(np.array([s.most]))[0] for s in plain.values()])
    conversions_us = np.array(
        [handover_us(handovers, converting, v.levels, v.formats) for v in variants]
    )
    group_of = _groups(offered, alike)
    emptied = _count_emptied(variants, group_of)
    left_us = _leftovers_us(parts, variants, surfaces, group_of)
    leftovers_us = left_us / np.maximum(emptied.sum(axis=0), 1.0)
    cells, counts = _count_cells(parts, variants)
    total_us = np.array([variant.total_us for variant in variants])
    gone_us = np.array([_gone_us(parts, variant, surfaces) for variant in variants])
    besides_us = overhead.fixed_us + conversions_us + gone_us + emptied @ leftovers_us
    correction = fit_correction(kind_terms, typical_us, emptied, counts, total_us, besides_us)
    corrected = _corrected(plain, correction, cells)
    tabulation = Tabulation(choices, full, overhead.fixed_us)
    for part in parts:
        tabulation.add(part, {f: s for (kind, f), s in corrected.items() if kind == part.kind})
    tabulation.add_handovers(handovers, converting)
    emptied_us = leftovers_us + correction.emptied_us
    for name, group in group_of.items():
        tabulation.add_emptied(name, emptied_us[group])
    c, a, b = correction.quadratic
    model = tabulation.model((c / 1e3, a, b * 1e3))
    model.figures.update(_figures(model, variants, choices, correction))
    model.figures["pairwise_error_us"] = tabulation.error_us
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


def _corrected(
    plain: Mapping[Kind, CorrectedSurface],
    correction: Correction,
    cells: Sequence[tuple[Kind, tuple[int, ...]]],
) -> dict[Kind, CorrectedSurface]:
    """The surfaces with what whole-model times say about them."""
    hidden_us: dict[Kind, dict[tuple[int, ...], float]] = defaultdict(dict)
    for (kind, cell), us in zip(cells, correction.hidden_us, strict=True):
        hidden_us[kind][cell] = float(us)
    return {
        kind: replace(
            surface,
            scale=1 + scale,
            fixed_us=fixed_us,
            slope_us=slope_us,
            hidden_us=hidden_us[kind],
        )
        for (kind, surface), (scale, fixed_us, slope_us) in zip(
            plain.items(), correction.terms, strict=True
        )
    }


def _most(part: Part, family: str, full: Mapping[str, int]) -> tuple[int, ...]:
    if family in DENSE_FAMILIES:
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


def _groups(offered: Mapping[str, tuple[int, ...]], alike: Mapping[str, str]) -> dict[str, int]:
    """A number for the structures that can be emptied, equal for those that are alike."""
    names = [name for name, levels in offered.items() if 0 in levels]
    numbers = {kind: number for number, kind in enumerate(sorted({alike[name] for name in names}))}
    return {name: numbers[alike[name]] for name in names}


def _leftovers_us(
    parts: Sequence[Part],
    variants: Sequence[Variant],
    surfaces: Mapping[Kind, Surface],
    group_of: Mapping[str, int],
) -> Floats:
    """By group, what the leftovers of all emptied structures take inside of other parts."""
    total_us = np.zeros(len(set(group_of.values())))
    for variant in variants:
        for part in parts:
            names = [n for n in variant.leftovers.get(part.bucket, ()) if n in group_of]
            if not names:
                continue
            us = float(np.median([profile.get(part.bucket, 0.0) for profile in variant.profiles]))
            alone_us = part_us(surfaces, variant, part)
            for name in names:
                total_us[group_of[name]] += (us - alone_us) / len(names)
    return np.maximum(total_us, 0.0)


def _gone_us(parts: Sequence[Part], variant: Variant, surfaces: Mapping[Kind, Surface]) -> float:
    """What is left of all parts that are emptied themselves."""
    return sum(part_us(surfaces, variant, part) for part in parts if variant.gone(part))


def _count_emptied(variants: Sequence[Variant], group_of: Mapping[str, int]) -> Floats:
    counts = np.zeros((len(variants), len(set(group_of.values()))))
    for row, variant in enumerate(variants):
        for name, group in group_of.items():
            counts[row, group] += variant.levels[name] == 0
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
        if sizes and min(sizes) > 0 and kind[1] in DENSE_FAMILIES
    )
    cells = sorted({(kind, sizes) for _, kind, sizes in counts})
    matrix = np.array([[counts[row, *cell] for cell in cells] for row in range(len(variants))])
    return cells, matrix.astype(np.float64).reshape(len(variants), len(cells))


def _figures(
    model: LatencyModel, variants: Sequence[Variant], choices: Choices, correction: Correction
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
        "left_out_error_median": float(np.median(correction.left_out)),
        "left_out_error_worst": float(np.max(correction.left_out)),
        "correction_strength": correction.strength[0],
        "correction_hidden_us": correction.strength[1],
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

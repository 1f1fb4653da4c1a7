"""Which variants of a network to measure: few, spread over all levels and over all speeds."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from edgeprune.graph.choices import Choices
from edgeprune.graph.sites import Option

Levels = dict[str, int]

_UNIFORM = (0.75, 0.5, 0.25)
_CANDIDATES = 3
# Chance that a structure is at its lowest in the smallest variant, at its highest in the largest.
_ENDS = 0.5
# Low: most structures full or nearly gone, as in real plans. High: all near the variant's mean.
_CONCENTRATIONS = (1.2, 4.0)
# Share of variants whose sites have families of their own, and how near sparsities lie together.
_MIXED = 0.4
_SCATTER = 3.0
_MIXED_WHOLE = 4


def design_variants(
    offered: Mapping[str, tuple[int, ...]],
    alike: Mapping[str, str],
    count: int,
    seed: int = 0,
) -> list[Levels]:
    """Variants that cover the levels of every kind of structure evenly.

    The dense model comes first, then everything at its lowest, some uniform ones, and for the
    rest a mean share that runs evenly from nearly nothing to nearly everything, since independent
    random levels would all take about the same time. Variants of which nothing would be left are
    dropped: a runtime folds them into a constant, and what they take tells nothing of others.

    Args:
        offered: Ascending levels of each structure.
        alike: Structures with equal values share their coverage.
        count: How many variants; fewer come back where there are not so many.
        seed: Of everything random here.

    Returns:
        Different variants, each with a level for every structure.
    """
    random = np.random.default_rng(seed)
    variants = [{name: levels[-1] for name, levels in offered.items()}]
    variants.append({name: levels[0] for name, levels in offered.items()})
    variants += [
        {name: levels[round(share * (len(levels) - 1))] for name, levels in offered.items()}
        for share in _UNIFORM
    ]
    used: Counter[tuple[str, int]] = Counter()
    left = max(0, count - len(variants))
    shares = (np.arange(left) + 0.5) / max(left, 1)
    for number, share in enumerate(random.permutation(shares)):
        concentration = _CONCENTRATIONS[number % len(_CONCENTRATIONS)]
        variant = {}
        for name, levels in offered.items():
            # The two ends are what plans use most, and no neighbour tells what emptying gives.
            lowest, highest = _ENDS * (1 - share) ** 2, _ENDS * share**2
            end = random.random()
            if end < lowest + highest:
                variant[name] = levels[0] if end < lowest else levels[-1]
                continue
            draws = random.beta(concentration * share, concentration * (1 - share), _CANDIDATES)
            options = [levels[round(draw * (len(levels) - 1))] for draw in draws]
            variant[name] = min(options, key=lambda level: used[alike[name], level])
            used[alike[name], variant[name]] += 1
        variants.append(variant)
    return _usable(variants)[: max(count, 1)]


def design_whole(choices: Choices, dense: Levels) -> list[Levels]:
    """Variants of full size, which no random levels come near: one in each family, a few mixed."""
    if not choices.sites:
        return []
    families = {_family(option) for options in choices.options.values() for option in options}
    whole = [dense] * (len(families) + _MIXED_WHOLE)
    return design_formats(choices, whole, seed=1, uniform=len(families), mixed=1.0)


def design_formats(
    choices: Choices,
    variants: Sequence[Levels],
    seed: int = 0,
    *,
    uniform: int | None = None,
    mixed: float = _MIXED,
) -> list[Levels]:
    """The variants with an option for every site: of one family throughout, as plans mostly are,
    or mixed.

    A variant has a sparsity of its own around which its sites scatter.

    Args:
        choices: The sites and their options.
        variants: Levels of the structures.
        seed: Of everything random here.
        uniform: How many of the first variants are surely of one family, each in its turn; by
            default twice as many as there are families.
        mixed: Share of mixed ones among the others.
    """
    if not choices.sites:
        return list(variants)
    random = np.random.default_rng(seed)
    families = {
        name: [_family(option) for option in options] for name, options in choices.options.items()
    }
    known = sorted({family for of_site in families.values() for family in of_site})
    order = [known[i % len(known)] for i in range(len(variants))]
    surely = 2 * len(known) if uniform is None else uniform
    result = []
    for number, variant in enumerate(variants):
        scattered = number >= surely and random.random() < mixed
        share = random.random()
        chosen = dict(variant)
        for name, of_site in families.items():
            family = str(random.choice(known)) if scattered else order[number]
            places = [place for place, found in enumerate(of_site) if found == family] or [0]
            draw = random.beta(_SCATTER * share + 0.2, _SCATTER * (1 - share) + 0.2)
            chosen[name] = places[round(draw * (len(places) - 1))]
        result.append(chosen)
    return result


def _family(option: Option) -> str:
    return option[0].family


def _usable(variants: list[Levels]) -> list[Levels]:
    seen: set[tuple[tuple[str, int], ...]] = set()
    result = []
    for variant in variants:
        key = tuple(sorted(variant.items()))
        if key not in seen and any(variant.values()):
            seen.add(key)
            result.append(variant)
    return result

"""The levels offered for each structure, which units each keeps, and what each costs alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprune.compression.constraints import Constraints, find_constraints
from edgeprune.errors import InputError
from edgeprune.graph.choices import Choices
from edgeprune.graph.network import Network
from edgeprune.graph.sites import find_sites
from edgeprune.graph.structure import Structure
from edgeprune.recipe import SearchRecipe, StructuresRecipe
from edgeprune.target import Target

_NOTHING_SETTLED = StructuresRecipe()

Levels = dict[str, int]
Keep = dict[str, npt.NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Alternatives:
    """The structured alternatives of one structure.

    Attributes:
        structure: Name of the structure.
        levels: Ascending numbers of units that may stay; the last is all of them.
        order: (units,), the units in order of removal, the first removed first.
        distortion: (levels,), the output error when only this structure is cut to each level.
    """

    structure: str
    levels: tuple[int, ...]
    order: npt.NDArray[np.int64]
    distortion: npt.NDArray[np.float64]

    def keep(self, level: int) -> npt.NDArray[np.int64]:
        """The units that stay at ``level``, ascending."""
        return np.sort(self.order[len(self.order) - level :])


def kept_units(alternatives: Mapping[str, Alternatives], levels: Mapping[str, int]) -> Keep:
    """The units that stay under a plan, for the structures that lose any."""
    return {
        name: alternatives[name].keep(level)
        for name, level in levels.items()
        if level < alternatives[name].levels[-1]
    }


# Families of single positions, whose number a device's vector width cares about.
_POSITIONS = frozenset({"channels", "head_width", "hidden", "neurons", "width"})


def offered_choices(
    network: Network,
    target: Target,
    recipe: SearchRecipe,
    settled: StructuresRecipe = _NOTHING_SETTLED,
) -> Choices:
    """The levels and formats worth offering, by what the device likes and the recipe allows.

    Raises:
        InputError: The model has none of the kinds of structures that the recipe offers, or what
            the recipe settles of single ones fits none.
    """
    there = sorted({structure.kind for structure in network.structures.values()})
    if "all" not in recipe.kinds and not set(recipe.kinds) & set(there):
        raise InputError(
            f"the recipe offers {', '.join(recipe.kinds)} only, and this model has "
            f"{', '.join(there)}; change search.kinds"
        )
    constraints = find_constraints(network, settled)
    levels = {
        name: _constrained_levels(structure, target.channel_multiple, recipe, constraints)
        for name, structure in network.structures.items()
        if name in constraints.forced
        or (name not in constraints.frozen and not {"all", structure.kind}.isdisjoint(recipe.kinds))
    }
    sites, options = {}, {}
    for site in find_sites(network.captured.module).values():
        families = [f for f in recipe.formats if f != "none" and site.runs(f)]
        if families:
            sites[site.name] = site
            options[site.name] = site.options(families, recipe.sparsities)
    return Choices(levels, sites, options, constraints.forced)


def _constrained_levels(
    structure: Structure, preferred: int, recipe: SearchRecipe, constraints: Constraints
) -> tuple[int, ...]:
    """The levels of one structure that the recipe leaves open; all of it is always among them."""
    name = structure.name
    if name in constraints.forced:
        return tuple(sorted({constraints.forced[name], structure.units}))
    if name in constraints.multiple:
        levels = _multiples(structure, constraints.multiple[name], recipe.max_levels)
    else:
        levels = offered_levels(structure, preferred, recipe.max_levels)
    return tuple(level for level in levels if level >= constraints.minimum.get(name, 0))


def offered_levels(structure: Structure, multiple: int, most: int) -> tuple[int, ...]:
    """The levels worth offering: multiples of what the device likes, none and all.

    Args:
        structure: Families of whole blocks of positions (heads, experts) get every level,
            channels and the like multiples of ``multiple``, or quarters where there are few.
        multiple: The device's preferred channel multiple.
        most: Upper bound on the number of levels; the step doubles until it holds.
    """
    step = 1
    if structure.kind in _POSITIONS:
        step = multiple if structure.units >= 2 * multiple else max(1, structure.units // 4)
    return _multiples(structure, step, most)


def _multiples(structure: Structure, step: int, most: int) -> tuple[int, ...]:
    while structure.units / step > most:
        step *= 2
    cut = range(step, structure.units, step)
    levels = {level for level in cut if level >= structure.minimum} | {structure.units}
    if structure.removable:
        levels.add(0)
    return tuple(sorted(levels))

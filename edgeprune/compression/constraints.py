"""What a recipe settles of single structures, found by the patterns that name them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from edgeprune.errors import InputError, StructureError
from edgeprune.graph.network import Network
from edgeprune.graph.structure import Structure
from edgeprune.recipe import StructuresRecipe
from edgeprune.suggest import suggestion

T = TypeVar("T")


@dataclass(frozen=True)
class Constraints:
    """By structure name, where something is settled.

    Attributes:
        frozen: These stay whole.
        forced: Number of units that every plan keeps.
        minimum: Least number of units.
        multiple: What levels are multiples of.
    """

    frozen: frozenset[str]
    forced: Mapping[str, int]
    minimum: Mapping[str, int]
    multiple: Mapping[str, int]


def find_constraints(network: Network, recipe: StructuresRecipe) -> Constraints:
    """Resolve a recipe's patterns on a network.

    Raises:
        InputError: A pattern matches nothing, or settles what cannot be.
    """
    names = _Names(network)
    frozen = {name for pattern in recipe.freeze for name in names.matching("freeze", pattern)}
    keep = _by_structure(names, "keep", recipe.keep)
    minimum = _by_structure(names, "minimum", recipe.minimum)
    structures = network.structures
    for name in minimum:
        if minimum[name] > structures[name].units:
            raise InputError(
                f"structures.minimum asks {minimum[name]} units of '{name}', "
                f"which has {structures[name].units}; lower it"
            )
    for name in frozen & set(keep):
        raise InputError(f"the recipe freezes '{name}' and says what it keeps; leave out one")
    return Constraints(
        frozenset(frozen),
        {
            name: _units(structures[name], share, minimum.get(name, 0))
            for name, share in keep.items()
        },
        minimum,
        _by_structure(names, "multiple", recipe.multiple),
    )


def with_head_width(network: Network, patterns: Sequence[str]) -> tuple[Network, list[str]]:
    """The network with heads that may be narrowed, where a recipe asks for it, and what resisted.

    Raises:
        InputError: A pattern matches no structure of heads.
    """
    names = _Names(network)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = names.matching("head_width", pattern)
        heads = [name for name in found if network.structures[name].kind == "heads"]
        if not heads:
            raise InputError(
                f"'{pattern}' in structures.head_width names no heads that can be removed; "
                "see edgeprune inspect"
            )
        chosen |= dict.fromkeys(heads)
    if not chosen:
        return network, []
    try:
        return network.with_head_width(list(chosen)), []
    except StructureError:
        return _one_by_one(network, list(chosen))


def _one_by_one(network: Network, heads: Sequence[str]) -> tuple[Network, list[str]]:
    """Head width of those structures that allow it."""
    allowed, notes = [], []
    for name in heads:
        try:
            network.with_head_width([name])
        except StructureError as error:
            notes.append(f"the heads of '{name}' keep their width: {error}")
        else:
            allowed.append(name)
    return (network.with_head_width(allowed) if allowed else network), notes


def _by_structure(names: "_Names", key: str, values: Mapping[str, T]) -> dict[str, T]:
    """The values of patterns for the structures they match; the last match counts."""
    return {
        name: value for pattern, value in values.items() for name in names.matching(key, pattern)
    }


def _units(structure: Structure, share: float, minimum: int) -> int:
    """How many units a share, or a number above 1, is."""
    units = round(share if share > 1 else share * structure.units)
    if share > 1 and units != share:
        raise InputError(
            f"structures.keep says {share:g} for '{structure.name}'; above 1 it must be whole"
        )
    least = max(minimum, structure.least)
    if not least <= units <= structure.units:
        raise InputError(
            f"structures.keep leaves {units} units of '{structure.name}'; "
            f"{least} to {structure.units} can stay"
        )
    return units


class _Names:
    """What patterns may name: structures, and the modules and parameters they have a part in."""

    def __init__(self, network: Network) -> None:
        self.structures = tuple(network.structures)
        self.of_part: dict[str, set[str]] = {
            name: set() for name, _ in network.captured.module.named_parameters()
        }
        for structure in network.structures.values():
            for slot in structure.slots:
                self.of_part.setdefault(slot.tensor, set()).add(structure.name)
        for tensor, found in list(self.of_part.items()):
            for module in _parents(tensor):
                self.of_part.setdefault(module, set()).update(found)

    def matching(self, key: str, pattern: str) -> list[str]:
        """Structures that a pattern means, in their order.

        Raises:
            InputError: It matches no name; the message has the closest.
        """
        found = [name for name in self.structures if fnmatchcase(name, pattern)]
        if found:
            return found
        parts = [name for name in self.of_part if fnmatchcase(name, pattern)]
        if not parts:
            known = [*self.structures, *self.of_part]
            raise InputError(
                f"'{pattern}' in structures.{key} matches nothing; {suggestion(pattern, known)}"
            )
        within = {name for part in parts for name in self.of_part[part]}
        if not within and key != "freeze":
            raise InputError(
                f"'{pattern}' in structures.{key} names parts that no structure reaches; "
                "see edgeprune inspect"
            )
        return [name for name in self.structures if name in within]


def _parents(tensor: str) -> Iterable[str]:
    """The modules that a parameter is in, innermost first."""
    while "." in tensor:
        tensor = tensor.rpartition(".")[0]
        yield tensor

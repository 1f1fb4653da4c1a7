"""Sizes that the user's own modules keep as plain numbers: ``num_heads``, ``hidden_size``.

The two graphs tell which numbers a module's forward must use now: where an operator of that module
was called with 4 and is called with 2, an attribute of the module that is 4 is a candidate for 2.
Candidates are only proposed here; whoever sets them has to run the module.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from torch import fx, nn
from torch.fx import Node

from edgeprune.graph.ops import output_shapes
from edgeprune.graph.write_back.sizes import Attributes

# Sets of attributes that are tried before a module is given up.
_TRIES = 64
# The choice to leave an attribute as it is.
_LEFT = -1

Change = tuple[Any, Any]
Changes = Mapping[str, Sequence[Change]]
"""By module path, sizes of before and after, those seen first coming first: numbers, or tuples."""


@dataclass(frozen=True)
class Group:
    """One attribute of all modules of one class, and what its values may become.

    Attributes:
        attribute: Its name.
        values: By module path the candidates, best first.
    """

    attribute: str
    values: Mapping[str, Sequence[Any]]

    @property
    def options(self) -> int:
        """How many ways there are to set it."""
        return max(len(found) for found in self.values.values())

    def option(self, number: int) -> dict[str, Any]:
        """The values of one way, by module path."""
        return {path: found[min(number, len(found) - 1)] for path, found in self.values.items()}


def module_path(node: Node) -> str:
    """The module whose forward called an operator; repeated calls count as the first."""
    return str(node.meta.get("module_path", "")).partition("@")[0]


def changed_arguments(captured: fx.Graph, shrunk: fx.Graph) -> Changes:
    """Numbers that stood in a call and are other ones after shrinking, and lists of such."""
    found: dict[str, dict[Change, None]] = defaultdict(dict)
    for node, copy in _pairs(captured, shrunk):
        said, now = _numbers(node), _numbers(copy)
        same = zip(said, now) if len(said) == len(now) else ()
        for old, new in (*_changed_dims(node, copy), *same):
            if old != new and old in said and new is not None:
                found[module_path(node)].setdefault((old, new))
        for change in _changed_lists(node, copy):
            found[module_path(node)].setdefault(change)
    return {path: list(changes) for path, changes in found.items()}


def changed_sizes(captured: fx.Graph, shrunk: fx.Graph) -> Changes:
    """Sizes of what a module's operators read and make, for the module and those around it."""
    found: dict[str, dict[Change, None]] = defaultdict(dict)
    for node, copy in _pairs(captured, shrunk):
        path = module_path(node)
        for around in (path, *parents(path)):
            for change in _changed_dims(node, copy):
                found[around].setdefault(change)
    return {path: list(changes) for path, changes in found.items()}


def candidates(model: nn.Module, changes: Changes) -> list[Group]:
    """Attributes of the user's own modules that are sizes which changed."""
    found: dict[tuple[type, str], dict[str, list[int]]] = defaultdict(dict)
    for path, module in model.named_modules():
        if type(module).__module__.startswith("torch.nn."):
            continue
        for name, value in vars(module).items():
            new = _candidates_of(value, changes.get(path, ()))
            if new:
                found[type(module), name][path] = new
    return [Group(attribute, values) for (_, attribute), values in found.items()]


def _candidates_of(value: Any, changes: Sequence[Change]) -> list[Any]:
    """What a number or a list of numbers may become: as a whole, else each number by its first."""
    if type(value) is int:
        return [after for before, after in changes if before == value]
    if not _is_sizes(value):
        return []
    first = dict(reversed(changes))  # the first of several wins
    each = tuple(first.get(size, size) for size in value)
    whole = [after for before, after in changes if before == tuple(value)]
    return list(dict.fromkeys([*whole, *([each] if each != tuple(value) else [])]))


def ways_to_set(groups: Sequence[Group]) -> Iterator[Attributes]:
    """All attributes at their best candidates, then with few of them otherwise or left alone."""
    ways = _by_deviation([group.options for group in groups])
    setting = (way for way in ways if any(choice != _LEFT for choice in way))
    for way in itertools.islice(setting, _TRIES):
        found: dict[str, dict[str, Any]] = defaultdict(dict)
        for group, choice in zip(groups, way, strict=True):
            if choice != _LEFT:
                for path, value in group.option(choice).items():
                    found[path][group.attribute] = value
        yield found


def _by_deviation(options: Sequence[int]) -> Iterator[list[int]]:
    """One choice for each of several numbers of options: the first of each, then few others."""
    for count in range(len(options) + 1):
        for which in itertools.combinations(range(len(options)), count):
            others = [[*range(1, options[index]), _LEFT] for index in which]
            for chosen in itertools.product(*others):
                way = [0] * len(options)
                for index, choice in zip(which, chosen, strict=True):
                    way[index] = choice
                yield way


def _pairs(captured: fx.Graph, shrunk: fx.Graph) -> Iterator[tuple[Node, Node]]:
    """Operators of the captured graph with what they have become."""
    copies = {node.name: node for node in shrunk.nodes}
    for node in captured.nodes:
        if node.op == "call_function" and node.name in copies:
            yield node, copies[node.name]


def _changed_dims(node: Node, copy: Node) -> list[Change]:
    """Sizes of what a call makes and of what it reads first, where they changed."""
    pairs = [(node, copy), *zip(node.all_input_nodes[:1], copy.all_input_nodes[:1])]
    return [
        (old, new)
        for before, after in pairs
        for shape, smaller in zip(output_shapes(before), output_shapes(after))
        for old, new in zip(shape, smaller)
        if old != new
    ]


def _changed_lists(node: Node, copy: Node) -> list[Change]:
    """Lists of whole numbers in a call that are others after shrinking, as tuples."""
    pairs = zip((*node.args, *node.kwargs.values()), (*copy.args, *copy.kwargs.values()))
    lists = [(tuple(a), tuple(b)) for a, b in pairs if _is_sizes(a) and _is_sizes(b)]
    return [(before, after) for before, after in lists if before != after]


def _is_sizes(value: Any) -> TypeGuard[list[int] | tuple[int, ...]]:
    return isinstance(value, list | tuple) and all(type(size) is int for size in value)


def _numbers(node: Node) -> list[int | None]:
    """Everything a call is given, lists taken apart; None for what is no whole number."""
    found: list[Any] = []
    for value in (*node.args, *node.kwargs.values()):
        found.extend(value if isinstance(value, list | tuple) else [value])
    return [value if type(value) is int else None for value in found]


def parents(path: str) -> list[str]:
    """Paths of the modules around a module, the innermost first, ending with the whole model."""
    parts = path.split(".") if path else []
    return [".".join(parts[:end]) for end in range(len(parts) - 1, -1, -1)]

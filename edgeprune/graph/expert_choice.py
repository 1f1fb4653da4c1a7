"""Routers that choose a few of several experts, whose weights are stacked in one tensor.

Such a choice is a top-k over a router's logits or over their softmax, and what is done with the
numbers of those chosen: they are put in order, counted, and rows of stacked tensors are read by
them. Experts may go if all of that is understood. One that is gone is one whose logit is minus
infinity, so that it is never chosen; the router's other readers would see a difference.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import Node

from edgeprune.graph.ops import argument, op_name

_SAME = {
    "to", "_to_copy", "type_as", "contiguous", "clone", "alias", "detach", "lift_fresh_copy",
}  # fmt: skip
_RESHAPED = {"view", "reshape", "_unsafe_view", "flatten", "unsqueeze", "squeeze"}
GROUPED = ("grouped_mm_fallback", "_grouped_mm")


@dataclass(frozen=True, eq=False)
class ExpertChoice:
    """A choice that is understood.

    Attributes:
        router: The linear layer whose rows are the experts.
        count: How many experts every token chooses.
        concerned: What computes with all the experts, or by the number of one: the softmax, the
            top-k, counts of how often each is chosen, and what reads stacked tensors.
    """

    router: Node
    count: int
    concerned: frozenset[Node]


def expert_choices(graph: fx.Graph) -> list[ExpertChoice]:
    """All choices of experts of which every reader is understood, in graph order."""
    readers = _readers_of_states(graph)
    found = (_choice(node, readers) for node in graph.nodes if op_name(node) == "topk")
    return [choice for choice in found if choice is not None]


def _readers_of_states(graph: fx.Graph) -> dict[str, int]:
    """How many operators read each parameter."""
    readers: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            readers[str(node.target)] = readers.get(str(node.target), 0) + len(node.users)
    return readers


def _choice(top: Node, readers: dict[str, int]) -> ExpertChoice | None:
    count = argument(top, 1, "k")
    scores = _scores(top)
    if scores is None or not isinstance(count, int):
        return None
    router = scores[-1]
    experts = _size(router)
    reading = _Reading(experts, readers)
    states = [value for value in router.all_input_nodes if value is not router.args[0]]
    if not 1 <= count < experts or not all(reading.is_own(state) for state in states):
        return None
    understood = all(reading.result(user) for user in top.users)
    if not understood or not any(op_name(node) in GROUPED for node in reading.concerned):
        return None  # without a stack it is no mixture, but the best of some features
    return ExpertChoice(router, count, frozenset((top, *scores[:-1], *reading.concerned)))


def _scores(top: Node) -> list[Node] | None:
    """What the top-k chooses by, back to the router; None where it is no plain choice."""
    rank = len(_shape(top.args[0]))
    largest = argument(top, 3, "largest", True)
    if argument(top, 2, "dim", -1) % rank != rank - 1 or not largest:
        return None
    found: list[Node] = []
    normalised = False
    node: Any = top.args[0]
    while len(node.users) == 1 and node.op == "call_function":
        found.append(node)
        name = op_name(node)
        if name == "linear":
            return found
        source = node.args[0]
        if name == "softmax" and not normalised and _runs_over_last(node):
            normalised = True  # a second one would find a zero, which is no minus infinity
        elif not (
            (name in _RESHAPED and _size(source) == _size(node))
            or (name in _SAME and node.meta["val"].is_floating_point())
        ):
            return None
        node = source
    return None


@dataclass
class _Reading:
    """Follows the numbers of the chosen experts to all their readers."""

    experts: int
    readers: dict[str, int]
    concerned: list[Node] = field(default_factory=list)

    def result(self, node: Node) -> bool:
        """Whether a result of the top-k is understood: how large scores are, or whose they are."""
        if op_name(node) != "getitem":
            return False
        return int(argument(node, 1)) == 0 or self._all(self._numbers, node)

    def is_own(self, value: Any) -> bool:
        """Whether a parameter is read at one place only."""
        return value.op == "get_attr" and self.readers[str(value.target)] == 1

    def _all(self, reader: Callable[[Node, Node], bool], node: Node) -> bool:
        return all(reader(user, node) for user in node.users)

    def _numbers(self, user: Node, numbers: Node) -> bool:
        """Whether an operator on the numbers of experts is understood."""
        name = op_name(user) if user.op == "call_function" else ""
        if name == "index":
            return self._reads_stack(user, numbers)
        if name not in _SAME | _RESHAPED | {"sort", "histc"} or user.args[0] is not numbers:
            return False
        if name == "sort":
            return all(self._sorted(part) for part in user.users)
        if name == "histc":
            return self._counts_all(user) and self._all(self._counts, user)
        return not _is_bool(user) and self._all(self._numbers, user)

    def _sorted(self, part: Node) -> bool:
        """Those that are left are in the same order: where each was is the same."""
        if op_name(part) != "getitem":
            return False
        return int(argument(part, 1)) == 1 or self._all(self._numbers, part)

    def _counts_all(self, node: Node) -> bool:
        """Whether there is a bin for each expert."""
        self.concerned.append(node)
        given = [argument(node, i, n) for i, n in ((1, "bins"), (2, "min"), (3, "max"))]
        return given == [self.experts, 0, self.experts - 1]

    def _counts(self, user: Node, counts: Node) -> bool:
        """Whether an operator on the counts of all experts is understood."""
        name = op_name(user) if user.op == "call_function" else ""
        if name in GROUPED:
            self.concerned.append(user)
            ends = argument(user, 2, "offs") is counts and len(user.all_input_nodes) == 3
            return ends and self._is_stack(user.args[1])
        if name == "cumsum":
            self.concerned.append(user)
            return self._all(self._counts, user)
        kept = name in _SAME and user.args[0] is counts and not _is_bool(user)
        return kept and self._all(self._counts, user)

    def _reads_stack(self, node: Node, numbers: Node) -> bool:
        """Whether an operator reads, for every number, what an expert has in a stacked tensor."""
        self.concerned.append(node)
        indices: Any = node.args[1]
        return len(indices) == 1 and indices[0] is numbers and self._is_stack(node.args[0])

    def _is_stack(self, value: Any) -> bool:
        """Whether this is a parameter whose first dimension is that of the experts."""
        turned = op_name(value) == "transpose" and _shape(value)[0] == self.experts
        source = value.args[0] if turned and len(value.users) == 1 else value
        return self.is_own(source) and _shape(source)[0] == self.experts


def _runs_over_last(softmax: Node) -> bool:
    rank = len(_shape(softmax))
    return bool(argument(softmax, 1, "dim") % rank == rank - 1)


def _shape(node: Any) -> tuple[int, ...]:
    value = node.meta["val"] if isinstance(node, Node) else None
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _size(node: Any) -> int:
    """Size of the last dimension."""
    return int(_shape(node)[-1])


def _is_bool(node: Node) -> bool:
    return bool(node.meta["val"].dtype == torch.bool)

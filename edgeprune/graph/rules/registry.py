"""The tables of rules: how an operator treats labels, and how its call shrinks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from torch.fx import Node

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling
    from edgeprune.graph.shrinker import Shrinker


@dataclass
class Call:
    """An operator call in terms of the captured graph's nodes."""

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, node: Node) -> "Call":
        """The call that the node makes."""
        return cls(node.target, node.args, dict(node.kwargs))

    def replace(self, index: int, name: str, value: Any) -> "Call":
        """The same call with one argument changed, given by position or by name."""
        if index < len(self.args):
            args = (*self.args[:index], value, *self.args[index + 1 :])
            return Call(self.target, args, self.kwargs)
        return Call(self.target, self.args, {**self.kwargs, name: value})


LabelRule = Callable[["Coupling", Node], Any]
RewriteRule = Callable[["Shrinker", Node], Call]
Rule = TypeVar("Rule", LabelRule, RewriteRule)

LABEL_RULES: dict[str, LabelRule] = {}
REWRITE_RULES: dict[str, RewriteRule] = {}


def _register(table: dict[str, Rule], names: tuple[str, ...], rule: Rule) -> Rule:
    for name in names:
        if name in table:
            raise ValueError(f"two rules for the operator {name}")
        table[name] = rule
    return rule


def labels(*names: str) -> Callable[[LabelRule], LabelRule]:
    """Register a function that gives the labels of an operator's result."""
    return lambda rule: _register(LABEL_RULES, names, rule)


def rewrites(*names: str) -> Callable[[RewriteRule], RewriteRule]:
    """Register a function that gives an operator's call after shrinking."""
    return lambda rule: _register(REWRITE_RULES, names, rule)

"""What structures alone, and formats alone, would have reached where a plan mixes both."""

from collections.abc import Mapping
from typing import Any

from edgeprune.errors import InfeasibleTarget
from edgeprune.graph.choices import Choices
from edgeprune.recipe import SearchRecipe
from edgeprune.search.joint import JointProblem
from edgeprune.stages.allocate import LossLog, starting_plans

Levels = Mapping[str, int]


def alone(
    problem: JointProblem, choices: Choices, plan: Levels, recipe: SearchRecipe, log: LossLog
) -> dict[str, dict[str, Any]]:
    """The best starting plans within a plan's own time that use one kind of alternative only.

    They are searched exactly and scored by their joint loss, and not refined: a row to compare
    with, not a competitor.

    Returns:
        By kind (``structures``, ``formats``) whether such a plan is ``reachable`` at all, and its
        ``output_error``; nothing for networks that have one kind only.
    """
    if not choices.sites or not choices.levels:
        return {}
    _, time_ms = problem.evaluate(plan)
    found: dict[str, dict[str, Any]] = {}
    for kind, fixed in (("structures", choices.sites), ("formats", choices.levels)):
        dense = {
            group.name: 0 if group.name in choices.sites else max(group.levels)
            for group in problem.groups
            if group.name in fixed
        }
        try:
            plans = starting_plans(problem.take(problem.only(dense)), time_ms, recipe)
        except InfeasibleTarget:
            found[kind] = {"reachable": False}
            continue
        least = min(log.loss(levels) for levels, _ in plans)
        found[kind] = {"reachable": True, "output_error": least}
    return found

"""Several readings of the same distortions, each giving the search another starting plan.

Distortions measured one at a time do not know what a refit of later layers repairs: adding them
up prefers narrowing everywhere over taking whole blocks out. Making removals cheaper, or all
differences smaller, yields plans of the other kind; the joint loss decides between them.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgeprune.search.problem import Group, Problem

# Powers below one shrink the difference between much and little distortion.
POWERS = (1.0, 0.6)


def scaled(problem: Problem, removal: float, power: float) -> Problem:
    """The problem with distortions raised to ``power``, those of emptied groups times ``removal``.

    Args:
        problem: Distortions as measured.
        removal: Factor on the distortion of level 0.
        power: Exponent on every distortion.
    """
    return replace(problem, groups=tuple(_group(g, removal, power) for g in problem.groups))


def _group(group: Group, removal: float, power: float) -> Group:
    distortion = np.power(np.maximum(group.distortion, 0.0), power)
    emptied = np.asarray(group.levels) == 0
    return replace(group, distortion=np.where(emptied, distortion * removal, distortion))


def readings(removals: Sequence[float]) -> list[tuple[float, float]]:
    """All (removal, power) pairs to try, the distortions as measured first."""
    return [(removal, power) for power in POWERS for removal in removals]

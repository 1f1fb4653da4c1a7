"""Drop alternatives that cannot be in a plan better than one already known."""

import numpy as np

from edgeprune.search.bound import PricedProblem
from edgeprune.search.problem import Problem

# Bounds are sums of hundreds of rounded numbers; an alternative this close to the line stays.
_MARGIN = 1e-9


def drop_hopeless(problem: Problem, limit_ms: float, ceiling: float, price: float) -> Problem:
    """The problem without alternatives whose own Lagrangian bound is above ``ceiling``.

    The bound is that of all plans with the alternative, at one price of time (reduced-cost
    fixing; at a price of zero it is the alternative's distortion with the least of all others).

    Args:
        problem: All distortions finite.
        limit_ms: Largest time allowed, in ms.
        ceiling: Distortion of a plan within the limit; its alternatives stay.
        price: Distortion a millisecond is worth, at least 0.
    """
    marginals = PricedProblem(problem).marginals(price)
    scale = (
        abs(ceiling)
        + price * abs(limit_ms)
        + max((abs(float(m.min())) for m in marginals), default=0.0)
    )
    kept = [np.flatnonzero(m - price * limit_ms <= ceiling + _MARGIN * scale) for m in marginals]
    return problem.take(kept)

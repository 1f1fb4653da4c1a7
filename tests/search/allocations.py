"""Random small allocation problems and their optimum by trying every plan."""

import itertools
import math

import numpy as np
from hypothesis import strategies as st

from edgeprune.search.problem import Group, Pair, Problem, time_limit_ms

GRAPHS = ("none", "chain", "star", "tree", "ring", "general", "parallel")


def edges_of(graph: str, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    if graph == "chain":
        return [(i, i + 1) for i in range(count - 1)]
    if graph == "star":
        return [(i, 0) for i in range(1, count)]
    if graph == "tree":
        return [(int(rng.integers(i)), i) for i in range(1, count)]
    if graph == "ring" and count > 2:
        return [(i, (i + 1) % count) for i in range(count)]
    if graph == "general":
        every = list(itertools.combinations(range(count), 2))
        return [edge for edge in every if rng.random() < 0.7]
    if graph == "parallel" and count > 1:
        return [(0, 1), (1, 0)]
    return []


def random_problem(
    rng: np.random.Generator,
    graph: str,
    sizes: list[int],
    *,
    whole_numbers: bool,
    forbidden: float = 0.1,
) -> Problem:
    """Whole numbers give ties and exact budgets, the others what a table holds."""

    def draw(shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
        values = rng.uniform(low, high, shape)
        return np.round(values) if whole_numbers else values * 10.0 ** rng.uniform(-3, 0)

    groups = []
    for i, size in enumerate(sizes):
        distortion = draw((size,), 0, 9)
        hidden = rng.random(size) < forbidden
        hidden[rng.integers(size)] = False
        distortion[hidden] = math.inf
        levels = tuple(int(level) for level in rng.permutation(100)[:size])
        groups.append(Group(f"g{i}", levels, distortion, draw((size,), 0, 9)))
    pairs = [
        Pair(f"g{a}", f"g{b}", draw((sizes[a], sizes[b]), -3, 6))
        for a, b in edges_of(graph, len(sizes), rng)
    ]
    return Problem(tuple(groups), tuple(pairs), float(draw((1,), 0, 5)[0]))


def every_plan(problem: Problem) -> list[tuple[float, float]]:
    """Distortion and time of each plan without a forbidden level."""
    ranges = [range(len(g.levels)) for g in problem.groups]
    found = [problem.evaluate_choice(np.array(c)) for c in itertools.product(*ranges)]
    return [(d, t) for d, t in found if math.isfinite(d)]


def optimum(problem: Problem, budget_ms: float) -> float:
    """Least distortion within the budget, inf if no plan fits."""
    limit_ms = time_limit_ms(budget_ms)
    return min((d for d, t in every_plan(problem) if t <= limit_ms), default=math.inf)


@st.composite
def cases(draw: st.DrawFn, graphs: tuple[str, ...] = GRAPHS) -> tuple[Problem, float]:
    """A problem and a budget, from out of reach to more than enough."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    graph = draw(st.sampled_from(graphs))
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    problem = random_problem(rng, graph, sizes, whole_numbers=draw(st.booleans()))
    times = sorted(t for _, t in every_plan(problem))
    share = draw(st.floats(-0.2, 1.2))
    if draw(st.booleans()):
        # The very time of a plan, which rounding must not put out of reach.
        return problem, times[round(min(max(share, 0.0), 1.0) * (len(times) - 1))]
    return problem, times[0] + share * (times[-1] - times[0]) - (0.5 if share < 0 else 0.0)

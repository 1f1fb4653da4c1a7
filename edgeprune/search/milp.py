"""The allocation as a mixed-integer program, solved by HiGHS through SciPy.

Each group takes exactly one alternative (a multiple-choice knapsack). The time of a pair is
carried by flow marginals: one continuous variable for each combination of levels, whose rows
and columns sum to the choices of the two groups. That is the tightest formulation of a pairwise
term and needs no big-M. Only the child process imports this module, and with it SciPy.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from edgeprune.search.bound import split
from edgeprune.search.problem import Array, Choice, Problem

# HiGHS stops at an absolute gap of 1e-6 as well; scaled up, the relative gap decides.
_OBJECTIVE_SCALE = 1e4
# Below this share of the table a residual of a pair is rounding, not interaction.
_NO_INTERACTION = 1e-12


@dataclass(frozen=True, eq=False)
class MilpAnswer:
    """What the solver says, to be checked by whoever asked.

    Attributes:
        choice: Level index of each group, or None when it found no plan.
        bound: The solver's own lower bound on the objective, -inf if it has none.
        infeasible: Whether it claims that no plan fits.
        message: The solver's words.
    """

    choice: Choice | None
    bound: float
    infeasible: bool
    message: str


@dataclass(frozen=True, eq=False)
class _Program:
    distortion: Array
    time_ms: Array
    equalities: csr_array
    right_hand: Array
    starts: npt.NDArray[np.intp]
    binaries: int


def solve_milp(
    problem: Problem, limit_ms: float | None, *, gap: float, time_limit_s: float
) -> MilpAnswer:
    """Least distortion within ``limit_ms``, or least time when that is None.

    Args:
        problem: All distortions finite.
        limit_ms: Largest time allowed, in ms.
        gap: Relative optimality gap at which the solver may stop.
        time_limit_s: Handed to the solver, which is known to overrun it.
    """
    program = _program(problem)
    objective = program.time_ms if limit_ms is None else program.distortion
    least = _least(objective, program)
    offset = float(least.sum())
    shifted = objective.copy()
    shifted[: program.binaries] -= np.repeat(least, np.diff(program.starts))
    scale = _OBJECTIVE_SCALE / (float(np.abs(shifted).max()) or 1.0)
    constraints = [LinearConstraint(program.equalities, program.right_hand, program.right_hand)]
    if limit_ms is not None:
        constraints.append(_time_row(program, limit_ms - problem.base_ms))
    integrality = np.zeros(len(objective))
    integrality[: program.binaries] = 1
    result = milp(
        shifted * scale,
        integrality=integrality,
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": gap, "time_limit": time_limit_s, "disp": False},
    )
    base = problem.base_ms if limit_ms is None else 0.0
    bound = getattr(result, "mip_dual_bound", None)
    return MilpAnswer(
        None if result.x is None else _rounded(result.x, program),
        -np.inf if bound is None else bound / scale + offset + base,
        result.status == 2,
        str(result.message),
    )


def _least(objective: Array, program: _Program) -> Array:
    return np.minimum.reduceat(objective[: program.binaries], program.starts[:-1])


def _rounded(x: Array, program: _Program) -> Choice:
    picks = [x[a:b].argmax() for a, b in zip(program.starts[:-1], program.starts[1:], strict=True)]
    return np.array(picks, dtype=np.intp)


def _time_row(program: _Program, limit_ms: float) -> LinearConstraint:
    """The budget, in units in which the largest time difference is one."""
    least = _least(program.time_ms, program)
    row = program.time_ms.copy()
    row[: program.binaries] -= np.repeat(least, np.diff(program.starts))
    scale = float(np.abs(row).max()) or 1.0
    return LinearConstraint(
        csr_array(row[None, :] / scale), -np.inf, (limit_ms - float(least.sum())) / scale
    )


def _program(problem: Problem) -> _Program:
    """Variables and equalities: choices of all groups first, then the pairs' marginals."""
    starts = np.cumsum([0, *(len(g.levels) for g in problem.groups)])
    distortion = np.concatenate([g.distortion for g in problem.groups])
    times = np.concatenate([g.time_ms for g in problem.groups])
    rows = [np.repeat(np.arange(len(problem.groups)), np.diff(starts))]
    columns = [np.arange(starts[-1])]
    values = [np.ones(starts[-1])]
    marginals: list[Array] = []
    next_row, next_column = len(problem.groups), int(starts[-1])
    for k, from_rows, from_columns, residual in split(problem):
        a, b = problem.edges[k]
        times[starts[a] : starts[a + 1]] += from_rows
        times[starts[b] : starts[b + 1]] += from_columns
        if residual.max() <= _NO_INTERACTION * np.abs(problem.pairs[k].time_ms).max():
            continue
        m, n = residual.shape
        cell = next_column + np.arange(m * n)
        rows += [next_row + np.repeat(np.arange(m), n), next_row + np.arange(m)]
        columns += [cell, starts[a] + np.arange(m)]
        rows += [next_row + m + np.tile(np.arange(n), m), next_row + m + np.arange(n)]
        columns += [cell, starts[b] + np.arange(n)]
        values += [np.ones(m * n), -np.ones(m), np.ones(m * n), -np.ones(n)]
        marginals.append(residual.ravel())
        next_row, next_column = next_row + m + n, next_column + m * n
    entries = (np.concatenate(rows), np.concatenate(columns))
    equalities = csr_array((np.concatenate(values), entries), shape=(next_row, next_column))
    right_hand = np.zeros(next_row)
    right_hand[: len(problem.groups)] = 1.0
    extra = np.zeros(next_column - int(starts[-1]))
    return _Program(
        np.concatenate([distortion, extra]),
        np.concatenate([times, *marginals]),
        equalities,
        right_hand,
        starts,
        int(starts[-1]),
    )

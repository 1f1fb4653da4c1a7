"""The exact search against trying every plan, and what happens when the solver fails."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from allocations import cases, every_plan, optimum, random_problem
from hypothesis import HealthCheck, given, settings

from edgeprune.errors import InfeasibleTarget
from edgeprune.search import process as process_module
from edgeprune.search.fastest import fastest_plan
from edgeprune.search.problem import Group, Problem, time_limit_ms
from edgeprune.search.process import MilpProcess, SolverDied
from edgeprune.search.solve import solve

many = settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def process() -> Iterator[MilpProcess]:
    with MilpProcess() as shared:
        yield shared


@many
@given(case=cases())
def test_equals_brute_force(case: tuple[Problem, float], process: MilpProcess) -> None:
    problem, budget_ms = case
    best = optimum(problem, budget_ms)
    if math.isinf(best):
        with pytest.raises(InfeasibleTarget) as caught:
            solve(problem, budget_ms, gap=0.0, process=process)
        fastest_ms = min(t for _, t in every_plan(problem))
        assert caught.value.fastest_ms == pytest.approx(fastest_ms)
        assert f"{fastest_ms:.6g} ms" in str(caught.value)
        return
    solution = solve(problem, budget_ms, gap=0.0, process=process)
    assert solution.distortion == pytest.approx(best, rel=1e-6, abs=1e-9)
    assert (solution.distortion, solution.time_ms) == problem.evaluate(solution.levels)
    assert solution.time_ms <= time_limit_ms(budget_ms)
    assert solution.lower_bound <= best + 1e-9
    assert solution.gap <= 1e-6
    assert solution.certified_gap >= 0


@many
@given(case=cases())
def test_fastest_plan_is_the_fastest(case: tuple[Problem, float], process: MilpProcess) -> None:
    problem, _ = case
    fastest = fastest_plan(problem, process=process)
    assert fastest.time_ms == pytest.approx(min(t for _, t in every_plan(problem)))
    assert (fastest.distortion, fastest.time_ms) == problem.evaluate(fastest.levels)
    assert fastest.lower_ms <= fastest.time_ms
    assert math.isfinite(fastest.distortion)


def middle(problem: Problem, share: float = 0.4) -> float:
    fastest_ms = fastest_plan(problem).time_ms
    slowest_ms, _ = problem.evaluate({g.name: g.levels[0] for g in problem.groups})[::-1]
    return fastest_ms + share * (slowest_ms - fastest_ms)


@pytest.fixture
def wide() -> tuple[Problem, float]:
    rng = np.random.default_rng(7)
    problem = random_problem(rng, "chain", [6] * 12, whole_numbers=False, forbidden=0.0)
    return problem, middle(problem)


def test_a_gap_is_kept_and_certified(wide: tuple[Problem, float]) -> None:
    problem, budget_ms = wide
    loose, tight = (solve(problem, budget_ms, gap=g) for g in (0.2, 0.0))
    assert tight.status == loose.status == "optimal"
    assert tight.distortion <= loose.distortion <= tight.distortion * 1.2 + 1e-12
    assert loose.gap <= 0.2 + 1e-9
    assert tight.lower_bound <= tight.distortion
    assert tight.multiplier > 0


@pytest.mark.parametrize("forbid", [False, True])
def test_a_dense_graph_is_exact_too(forbid: bool, process: MilpProcess) -> None:
    """Twelve groups of which every two are joined, so the bound has to relax some pairs."""
    rng = np.random.default_rng(3)
    problem = random_problem(rng, "general", [3] * 9, whole_numbers=False, forbidden=0.2 * forbid)
    budget_ms = middle(problem, 0.3)
    solution = solve(problem, budget_ms, gap=0.0, process=process)
    assert solution.distortion == pytest.approx(optimum(problem, budget_ms), rel=1e-6)


class Killing(MilpProcess):
    """Ends the child while it works, as the out-of-memory killer would."""

    def solve(self, *args: object, **kwargs: object) -> dict[str, object]:
        if self.pid is None:
            super().solve(
                Problem((Group("a", (0,), np.zeros(1), np.zeros(1)),)),
                1.0,
                gap=0.0,
                time_limit_s=30.0,
            )
        assert self.pid is not None
        os.kill(self.pid, signal.SIGSTOP)
        threading.Timer(0.2, os.kill, (self.pid, signal.SIGKILL)).start()
        return super().solve(*args, **kwargs)  # type: ignore[arg-type]


def test_a_certified_plan_needs_no_solver(wide: tuple[Problem, float]) -> None:
    """The greedy plan is good enough for a loose gap, and says what proves it."""
    problem, budget_ms = wide
    with MilpProcess() as process:
        solution = solve(problem, budget_ms, gap=0.5, process=process)
        assert process.pid is None
    assert solution.status == "optimal"
    assert solution.gap == solution.certified_gap <= 0.5


def test_a_killed_solver_leaves_a_feasible_plan_with_its_bound(wide: tuple[Problem, float]) -> None:
    problem, budget_ms = wide
    exact = solve(problem, budget_ms, gap=0.0)
    with Killing() as killing:
        solution = solve(problem, budget_ms, gap=0.0, process=killing)
    assert solution.status == "lagrangian"
    assert "ended with code -9" in solution.message
    assert solution.time_ms <= budget_ms
    assert solution.lower_bound <= exact.distortion <= solution.distortion
    assert 0 < solution.gap == solution.certified_gap
    assert solution.distortion <= 1.5 * exact.distortion


def test_a_stuck_solver_is_killed_and_the_next_search_works(wide: tuple[Problem, float]) -> None:
    problem, budget_ms = wide
    with MilpProcess() as process:
        exact = solve(problem, budget_ms, gap=0.0, process=process)
        stopped = process.pid
        assert stopped is not None
        os.kill(stopped, signal.SIGSTOP)
        started = time.monotonic()
        stuck = solve(problem, budget_ms, gap=0.0, time_limit_s=0.4, process=process)
        assert time.monotonic() - started < 10
        assert "no answer" in stuck.message
        with pytest.raises(ProcessLookupError):
            os.kill(stopped, 0)
        again = solve(problem, budget_ms, gap=0.0, process=process)
        assert (again.status, again.distortion) == ("optimal", exact.distortion)


def test_a_lying_solver_is_not_believed(wide: tuple[Problem, float]) -> None:
    problem, budget_ms = wide

    class Lying(MilpProcess):
        def solve(self, problem: Problem, *args: object, **kwargs: object) -> dict[str, object]:
            slowest = [int(g.time_ms.argmax()) for g in problem.groups]
            return {"choice": slowest, "bound": 1e9, "infeasible": False, "message": "done"}

    honest = solve(problem, budget_ms, gap=0.0)
    solution = solve(problem, budget_ms, gap=0.0, process=Lying())
    assert solution.time_ms <= budget_ms
    assert honest.distortion <= solution.distortion
    assert solution.gap == pytest.approx(solution.certified_gap)


def test_a_solver_that_cannot_start_is_an_answer(
    wide: tuple[Problem, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module.sys, "executable", "/bin/false")
    problem, budget_ms = wide
    assert solve(problem, budget_ms, gap=0.0).status == "lagrangian"
    with pytest.raises(SolverDied), MilpProcess() as process:
        process.solve(problem, budget_ms, gap=0.0, time_limit_s=1.0)


def test_the_child_ends_with_its_parent() -> None:
    script = (
        "import os, signal; from edgeprune.search.process import MilpProcess\n"
        "from edgeprune.search.problem import Group, Problem\n"
        "p = MilpProcess(); g = Group('a', (0,), [0.0], [0.0])\n"
        "p.solve(Problem((g,)), 1.0, gap=0.0, time_limit_s=5.0)\n"
        "print(p.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    child = int(done.stdout)
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{child}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _running(child)


def _running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_search_needs_neither_torch_nor_scipy() -> None:
    script = (
        "import sys, edgeprune.search.solve, edgeprune.search.local_search\n"
        "print(sorted({'torch', 'scipy', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr

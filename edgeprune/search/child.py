"""The process that runs the MILP solver: one JSON line in, one JSON line out.

It is started by `edgeprune.search.process` and ends when its standard input does. SciPy's call
cannot be interrupted from within, which is why it has a process of its own.
"""

import json
import os
import resource
import sys
from typing import Any

from edgeprune.search.milp import solve_milp
from edgeprune.search.problem import Problem

# CPU seconds beyond the solver's time limit after which the system ends an orphaned child.
_GRACE_S = 60


def main() -> None:
    """Serve jobs until standard input ends."""
    # HiGHS prints to standard output even when told not to: that must be no answer, and no noise.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    _send(answers, {"ready": os.getpid()})
    for line in sys.stdin:
        _send(answers, _answer(json.loads(line)))


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + job["time_limit_s"] + _GRACE_S)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    answer = solve_milp(
        Problem.from_json(job["problem"]),
        job["limit_ms"],
        gap=job["gap"],
        time_limit_s=job["time_limit_s"],
    )
    return {
        "choice": None if answer.choice is None else answer.choice.tolist(),
        "bound": answer.bound if abs(answer.bound) < float("inf") else None,
        "infeasible": answer.infeasible,
        "message": answer.message,
    }


def _send(answers: Any, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()

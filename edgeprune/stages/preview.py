"""What is reachable and what it will cost, said before anything is searched or trained."""

from collections.abc import Mapping, Sequence

from edgeprune.console import duration
from edgeprune.errors import InfeasibleTarget
from edgeprune.latency.model import LatencyModel
from edgeprune.report.summary import prunable_line
from edgeprune.request import Goal
from edgeprune.stages.run import Run, Subject
from edgeprune.stages.trial import limit_ms

# What a goal costs besides refining and recovering: searches, compiles, timing, judging.
_REST_MINUTES = 2.0


def refuse_unreachable(goals: Sequence[Goal], latency: LatencyModel) -> None:
    """Stop before any work is done for goals that no plan can reach.

    Raises:
        InfeasibleTarget: Names the fastest reachable time.
    """
    for goal in goals:
        wanted = limit_ms(goal, latency.dense_ms)
        if wanted < latency.fastest_ms:
            most = latency.dense_ms / latency.fastest_ms
            raise InfeasibleTarget(
                f"target {goal} is out of reach: it needs {wanted:.3f} ms, "
                f"the fastest plan takes {latency.fastest_ms:.3f} ms ({most:.2f}x)"
            )


def prunable(subject: Subject, latency: LatencyModel) -> dict[str, float]:
    """Shares of the dense model's parameters and of its measured time that can be pruned."""
    return {
        "parameters": subject.network.summary().share_prunable,
        "time": latency.prunable_share,
    }


def cost_minutes(run: Run, goals: Sequence[Goal]) -> float:
    """Minutes the rest of the run is likely to take, besides pricing the alternatives."""
    each = run.recipe.search.refine_minutes + (run.request.recovery_minutes or 0.0)
    return len(goals) * (each + _REST_MINUTES)


def preview(
    run: Run,
    subject: Subject,
    latency: LatencyModel,
    goals: Sequence[Goal],
    shares: Mapping[str, float],
) -> str:
    """The reachable range, what is prunable, and an estimate of cost, in three lines."""
    structures = subject.network.structures
    units = sum(structure.units for structure in structures.values())
    places = len(latency.full) - len(structures)
    formats = f" and formats in {places} places" if places else ""
    most = latency.dense_ms / latency.fastest_ms
    named = ", ".join(f"{goal} ({limit_ms(goal, latency.dense_ms):.3f} ms)" for goal in goals)
    return (
        f"dense {latency.dense_ms:.3f} ms, reachable down to {latency.fastest_ms:.3f} ms "
        f"({most:.2f}x) by {len(structures)} structures with {units} units{formats}\n"
        f"{prunable_line(shares)}\n"
        f"targets {named}: about {duration(60 * cost_minutes(run, goals))} of work"
    )

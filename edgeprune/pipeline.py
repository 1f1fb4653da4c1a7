"""The story of a run: task, graph, alternatives, plan, network, recovery, artifact, measurement."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgeprune import console
from edgeprune.atomic import atomic_write_json
from edgeprune.compression.calibration import first_samples
from edgeprune.compression.candidate import Candidates
from edgeprune.compression.criteria import criterion
from edgeprune.devices import device
from edgeprune.errors import TargetMissed
from edgeprune.latency import fingerprint
from edgeprune.latency.measure import Measurement
from edgeprune.latency.model import LatencyModel
from edgeprune.recipe import load_recipe
from edgeprune.request import CompressRequest, Goal
from edgeprune.runtimes import runtime
from edgeprune.search.joint import JointProblem
from edgeprune.stages import deliver, price
from edgeprune.stages.allocate import LossLog
from edgeprune.stages.alone import alone
from edgeprune.stages.dense import Baselines, make_baselines
from edgeprune.stages.formats import format_rows
from edgeprune.stages.loop import Closed, Loop
from edgeprune.stages.member import answers_folder, build_member, recover_member, slug
from edgeprune.stages.open_sizes import describe_open_sizes
from edgeprune.stages.own_module import describe_own_module
from edgeprune.stages.preview import cost_minutes, preview, prunable, refuse_unreachable
from edgeprune.stages.record import report_record
from edgeprune.stages.run import Run, Subject
from edgeprune.stages.subject import make_subject
from edgeprune.stages.trial import Trials, limit_ms
from edgeprune.target import load_target
from edgeprune.task import load_task
from edgeprune.workspace import Workspace


def compress(request: CompressRequest) -> dict[str, Any]:
    """Compress a task's model to one or several goals; what ``report.json`` holds.

    Raises:
        InputError: The task, target, recipe or run folder cannot be used.
        InfeasibleTarget: A goal is out of reach; nothing was searched or trained.
        TargetMissed: A goal was not met; the report was written.
        UnavailableError: The device or its runtime is not there.
    """
    with open_run(request) as run:
        subject = make_subject(run)
        choices = price.choose(run, subject)
        latency = price.measure_latency(run, subject, choices)
        goals = sorted(request.goals, key=lambda goal: -limit_ms(goal, latency.dense_ms))
        shares = prunable(subject, latency)
        console.message(preview(run, subject, latency, goals, shares))
        refuse_unreachable(goals, latency)
        if request.dry_run:
            cost = {"minutes": cost_minutes(run, goals)}
            return {"dry_run": True, "prunable": shares, **latency_range(latency), **cost}
        baselines = make_baselines(run, subject)
        offer = price.offer_alternatives(run, subject, choices)
        problem = price.allocation(latency, offer)
        with console.progress("dense outputs to compare with"):
            candidates = Candidates(
                subject.network,
                choices,
                offer.alternatives,
                offer.grams,
                first_samples(subject.calibration.fit, run.recipe.refit.scoring_samples),
                subject.calibration.score,
                run.recipe.calibration.damping,
                run.recipe.refit.damping,
                run.recipe.refit.enabled,
            )
        loops, closed = close_loops(run, subject, goals, latency, problem, candidates)
        while True:
            family = make_family(run, subject, baselines, loops, closed, candidates)
            again = planned_again(loops, closed, family)
            if not again:
                return finish(run, subject, baselines, family, shares)
            closed |= again


def close_loops(
    run: Run,
    subject: Subject,
    goals: Sequence[Goal],
    latency: LatencyModel,
    problem: JointProblem,
    candidates: Candidates,
) -> tuple[dict[Goal, Loop], dict[Goal, Closed]]:
    """A plan for each goal that trials on the device say is met, or the best that was found."""
    loops: dict[Goal, Loop] = {}
    closed: dict[Goal, Closed] = {}
    for goal in goals:
        stage = run.workspace.stage(f"loop-{slug(goal)}", loop_inputs(run, subject, latency))
        before = [trial for loop in loops.values() for trial in loop.trials.taken]
        trials = Trials(run, subject, goal, candidates, stage.folder, before)
        log = LossLog(stage.folder / "losses.jsonl", candidates)
        loops[goal] = Loop(goal, run.recipe.search, latency, problem, log, trials)
        closed[goal] = loops[goal].close()
        stage.finish(None)
    return loops, closed


@dataclass(frozen=True)
class Family:
    """The finished members, timed together: the report's rows, and what they come from."""

    rows: dict[Goal, dict[str, Any]]
    measurement: Measurement


def make_family(
    run: Run,
    subject: Subject,
    baselines: Baselines,
    loops: Mapping[Goal, Loop],
    closed: Mapping[Goal, Closed],
    candidates: Candidates,
) -> Family:
    """Build, recover and judge every member, and time them all together."""
    judged: dict[Goal, deliver.Judged] = {}
    extra: dict[Goal, dict[str, Any]] = {}
    minutes = run.request.recovery_minutes
    for goal, end in closed.items():
        deliver.write_plan(run, goal, end, candidates)
        member = build_member(run, subject, goal, end.allocated.levels, candidates)
        extra[goal] = {}
        if minutes:
            before = deliver.deliver(run, subject, goal, member, "before_recovery")
            member = recover_member(run, subject, goal, member, minutes)
            extra[goal] = {
                "before_recovery": {"quality": before.quality, "fidelity": before.fidelity},
                "recovery": member.history,
            }
        extra[goal]["notes"] = member.notes
        plan, choices, loop = end.allocated.levels, candidates.choices, loops[goal]
        extra[goal]["formats"] = format_rows(loop.latency, choices, plan)
        extra[goal]["alone"] = alone(loop.problem, choices, plan, run.recipe.search, loop.log)
        judged[goal] = deliver.deliver(run, subject, goal, member)
        extra[goal]["own_module"] = describe_own_module(run, subject, goal, member)
        extra[goal]["open_sizes"] = describe_open_sizes(run, subject, goal, member)
    shutil.rmtree(answers_folder(run), ignore_errors=True)
    measurement = deliver.confirm(run, subject, baselines, judged)
    return Family(
        {
            goal: deliver.result_row(goal, end, judged[goal], measurement, extra[goal])
            for goal, end in closed.items()
        },
        measurement,
    )


def planned_again(
    loops: Mapping[Goal, Loop], closed: Mapping[Goal, Closed], family: Family
) -> dict[Goal, Closed]:
    """Other plans for the members that missed, where corrections are left and lead to any."""
    again = {
        goal: loops[goal].reopen(closed[goal], family.measurement, slug(goal))
        for goal, row in family.rows.items()
        if not row["met"]
    }
    return {
        goal: end
        for goal, end in again.items()
        if end.allocated.levels != closed[goal].allocated.levels
    }


def finish(
    run: Run,
    subject: Subject,
    baselines: Baselines,
    family: Family,
    shares: Mapping[str, float],
) -> dict[str, Any]:
    """Write the report, and what stands beside each artifact."""
    rows = list(family.rows.values())
    report = report_record(run, subject, baselines, family.measurement, rows, shares)
    atomic_write_json(run.folder / "report.json", report)
    deliver.describe(run, subject, report)
    misses = deliver.missed(rows)
    if misses:
        raise TargetMissed(
            f"missed {'; '.join(misses)}; the best artifacts are in {run.folder}, "
            "see edgeprune report"
        )
    return report


@contextmanager
def open_run(request: CompressRequest) -> Iterator[Run]:
    """Load what the request names and lock its run folder."""
    target = load_target(request.device)
    recipe = load_recipe(request.recipe)
    criterion(recipe.criterion)  # a name that is none is told before anything is measured
    task = load_task(request.task, request.settings)
    machine = device(target.transport)
    found = fingerprint.take(machine, target)
    identity = {"task": task.name, "settings": dict(task.settings), "device": target.name}
    with Workspace(request.out, identity) as workspace:
        yield Run(request, task, target, recipe, machine, runtime(target.runtime), found, workspace)


def loop_inputs(run: Run, subject: Subject, latency: LatencyModel) -> dict[str, Any]:
    """What the closed loop of a goal depends on."""
    return {
        "model": subject.key,
        "task": run.task.key,
        "data": subject.data_key,
        "device": run.fingerprint.key,
        "recipe": repr(
            (run.recipe.calibration, run.recipe.structures, run.recipe.search, run.recipe.refit)
        ),
        "criterion": run.recipe.criterion,
        "latency": latency.to_json(),
    }


def latency_range(latency: LatencyModel) -> dict[str, float]:
    """The reachable range as JSON values."""
    dense, fastest = latency.dense_ms, latency.fastest_ms
    return {"dense_ms": dense, "fastest_ms": fastest, "most_speedup": dense / fastest}

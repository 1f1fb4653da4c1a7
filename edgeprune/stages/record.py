"""The record of a run, as ``report.json`` holds it."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.latency.measure import Measurement
from edgeprune.locate import version
from edgeprune.stages.dense import Baseline, Baselines
from edgeprune.stages.run import Run, Subject


def report_record(
    run: Run,
    subject: Subject,
    baselines: Baselines,
    measurement: Measurement,
    rows: Sequence[Mapping[str, Any]],
    prunable: Mapping[str, float],
) -> dict[str, Any]:
    """Everything the report says; JSON values only."""
    int8 = baselines.int8
    return {
        "edgeprune": version(),
        "task": {
            "name": run.task.name,
            "settings": dict(run.task.settings),
            "quality_name": run.task.quality_name,
        },
        "device": run.target.name,
        "runtime": {"name": run.target.runtime, **run.runtime.versions()},
        "threads": run.target.threads,
        "fingerprint": {"key": run.fingerprint.key, **run.fingerprint.facts},
        "dense": _baseline(baselines.dense, measurement, "dense"),
        "dense_int8": _baseline(int8, measurement, "dense_int8") if int8 else None,
        "dense_int8_failure": baselines.int8_failure,
        "structures": {
            s.name: {"kind": s.kind, "units": s.units} for s in subject.network.structures.values()
        },
        "prunable": dict(prunable),
        "frozen": [
            {"tensor": f.tensor, "operator": f.operator, "source": f.source, "reason": f.reason}
            for f in subject.network.frozen
        ],
        "notes": [*subject.network.captured.notes, *over_survivors(subject)],
        "drifted_rounds": measurement.drifted_rounds,
        "results": [dict(row) for row in rows],
    }


def over_survivors(subject: Subject) -> list[str]:
    """Normalisations whose mean and variance are taken over what is left of their channels."""
    nodes = subject.network.renormalised
    return [f"normalised over the units that stay: {', '.join(nodes)}"] if nodes else []


def _baseline(baseline: Baseline, measurement: Measurement, name: str) -> dict[str, Any]:
    return {
        "latency_ms": measurement.stats(name).to_json(),
        "quality": baseline.quality,
        "size_bytes": baseline.size_bytes,
        "artifact": baseline.artifact,
    }

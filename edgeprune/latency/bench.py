"""``bench``: time an artifact, alone or against another, and say what the figures are worth."""

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.devices import Device
from edgeprune.errors import InputError
from edgeprune.latency.fingerprint import Fingerprint
from edgeprune.latency.measure import Measurement, time_interleaved
from edgeprune.target import Target

CONTROL = "control"
# Below this, two copies of one model differ by how they happen to lie in memory.
_RESOLUTION = 0.01
# Figures of the device's state that people understand.
_TOLD = (("load", 1.0, "load {}"), ("temperature_mc", 1e-3, "{} °C"), ("clock_khz", 1e-6, "{} GHz"))


@dataclass(frozen=True)
class Mode:
    """How long to measure.

    Attributes:
        name: ``quick`` or ``publishable``, as the result says.
        seconds: Measuring time of all artifacts together.
        processes: Fresh processes.
        least_samples: Samples of every artifact at least.
    """

    name: str
    seconds: float
    processes: int
    least_samples: int


QUICK = Mode("quick", seconds=10.0, processes=2, least_samples=100)
PUBLISHABLE = Mode("publishable", seconds=75.0, processes=6, least_samples=1024)


def find_artifacts(path: Path, suffix: str) -> dict[str, Path]:
    """The artifacts behind a path: an artifact itself, or those of a run or target folder.

    Args:
        path: A file or a folder.
        suffix: Of the runtime's artifacts, such as ``.xml``.

    Raises:
        InputError: There is none.
    """
    if path.is_file():
        return {path.name: path}
    if not path.is_dir():
        raise InputError(f"{path} does not exist; give an artifact ({suffix}) or a run folder")
    report = path / "report.json"
    if report.is_file():
        found = _reported(path, report)
    else:
        found = {str(p.relative_to(path)): p for p in sorted(path.glob(f"*{suffix}"))}
    if not found:
        raise InputError(f"{path} holds no artifact: give a {suffix} file or a finished run folder")
    return found


def find_inputs(artifact: Path) -> Path | None:
    """The example inputs saved near an artifact, if any."""
    for folder in list(artifact.resolve().parents)[:4]:
        if (folder / "inputs.npz").is_file():
            return folder / "inputs.npz"
    return None


def bench(
    device: Device,
    target: Target,
    fingerprint: Fingerprint,
    artifacts: Mapping[str, Path],
    *,
    mode: Mode = QUICK,
    cache_dir: Path | None = None,
    on_round: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Time artifacts interleaved with each other.

    Where there are several, the first one is timed a second time as a control: what it differs
    from itself is noise.

    Args:
        device: Where to measure.
        target: Runtime, threads and precision.
        fingerprint: Of that device and target, for the record.
        artifacts: By name; the first is what the others are compared with.
        mode: How long.
        cache_dir: Where the runtime may keep compiled models.
        on_round: Called with the share done.

    Returns:
        JSON values: the mode, the device and its state before and after each process, a row for
        each artifact, the control (null for a single artifact) and the comparisons.
    """
    names = list(artifacts)
    timed = dict(artifacts)
    if len(names) > 1:
        timed[CONTROL] = artifacts[names[0]]
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        inputs = find_inputs(Path(artifacts[names[0]])) or _made_up(Path(folder))
        measurement = time_interleaved(
            device,
            target,
            timed,
            inputs,
            seconds=mode.seconds,
            processes=mode.processes,
            least_samples=mode.least_samples,
            cache_dir=cache_dir,
            on_round=on_round,
        )
    control = _comparison(measurement, CONTROL, names[0]) if len(names) > 1 else None
    return {
        "mode": mode.name,
        "device": target.name,
        "fingerprint": {"key": fingerprint.key, **fingerprint.facts},
        "state": measurement.state,
        "processes": mode.processes,
        "drifted_rounds": measurement.drifted_rounds,
        "rounds": len(measurement.rounds),
        "artifacts": [_row(measurement, name, artifacts[name]) for name in names],
        "control": control,
        "comparisons": [
            _judged(_comparison(measurement, name, names[0]), control) for name in names[1:]
        ],
    }


def describe_state(states: Sequence[Mapping[str, Any]]) -> str:
    """What a device said of itself while it measured: ``load 0.4 to 2.1, 48 to 71 °C``."""
    told = []
    for key, scale, text in _TOLD:
        values = [float(state[key]) * scale for state in states if state.get(key) is not None]
        if values:
            told.append(text.format(f"{min(values):.3g} to {max(values):.3g}"))
    return ", ".join(told)


def _row(measurement: Measurement, name: str, path: Path) -> dict[str, Any]:
    stats = measurement.stats(name)
    return {
        "name": name,
        "artifact": str(path),
        "median_ms": stats.median,
        "p90_ms": stats.p90,
        "p95_ms": stats.p95,
        "ci95_ms": list(stats.ci95),
        "throughput_per_s": 1e3 / stats.median,
        "samples": stats.samples,
    }


def _comparison(measurement: Measurement, name: str, first: str) -> dict[str, Any]:
    ratio, low, high = measurement.ratio(name, first)
    return {"name": name, "against": first, "ratio": ratio, "ci95": [low, high]}


def _judged(comparison: dict[str, Any], control: Mapping[str, Any] | None) -> dict[str, Any]:
    """A difference counts where its interval clears what the control shows to be noise."""
    low, high = comparison["ci95"]
    noise = _RESOLUTION
    if control is not None:
        noise = max([noise, *(abs(math.log(edge)) for edge in control["ci95"])])
    if low > math.exp(noise):
        verdict = "slower"
    elif high < math.exp(-noise):
        verdict = "faster"
    else:
        verdict = "no difference"
    return {**comparison, "noise": noise, "verdict": verdict}


def _reported(folder: Path, report: Path) -> dict[str, Path]:
    try:
        fields = json.loads(report.read_text(encoding="utf-8"))
        rows = [("dense", fields["dense"])]
        rows += [(row["goal"], row) for row in fields["results"]]
        named = {name: folder / row["artifact"] for name, row in rows if row.get("artifact")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{report} is not a report of a run: {error}") from error
    gone = [str(path) for path in named.values() if not path.is_file()]
    if gone:
        raise InputError(f"{report} names artifacts that are gone: {', '.join(gone)}")
    return named


def _made_up(folder: Path) -> Path:
    """An empty archive, at which the runtime makes inputs up."""
    from edgeprune.latency.measure import save_inputs

    return save_inputs([], folder / "inputs.npz")

"""What is asked of one compression run, already parsed and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from edgeprune.errors import InputError


class Goal(NamedTuple):
    """One target of a run: a latency in milliseconds or a speed-up over the dense model."""

    kind: Literal["latency_ms", "speedup"]
    value: float

    def __str__(self) -> str:
        return f"{self.value:g} ms" if self.kind == "latency_ms" else f"{self.value:g}x"


@dataclass(frozen=True)
class CompressRequest:
    """One run: a task, a device, and the goals that share everything before the search.

    Attributes:
        task: Built-in name or path of a task file.
        device: Name of a file of ``targets/`` or a path.
        goals: At least one goal.
        recipe: Name of a file of ``recipes/`` or a path.
        recovery_minutes: Bound on the recovery of each goal; None leaves recovery out.
        out: The run folder.
        dry_run: Stop after the reachable range and the estimate of cost.
        settings: Arguments of the task, as text.
    """

    task: str
    device: str
    goals: tuple[Goal, ...]
    recipe: str = "default"
    recovery_minutes: float | None = None
    out: Path = Path("runs")
    dry_run: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.goals:
            raise InputError("no target given; add --target-latency 10ms or --target-speedup 2x")
        for goal in self.goals:
            floor = 0.0 if goal.kind == "latency_ms" else 1.0
            if not goal.value > floor:
                raise InputError(f"target {goal.kind} {goal.value:g} must be above {floor:g}")

"""The learning rate over a run whose length is minutes, not steps.

The rate is a function of the share of the run that is done. Shares belong to steps through a
:class:`Pace`, which is planned from measured step times and part of every checkpoint: with equal
paces two runs are equal bit for bit, however long their steps took.
"""

import math
from dataclasses import dataclass
from typing import Literal

Shape = Literal["cosine", "linear", "constant"]


def rate_factor(share: float, warmup: float, shape: Shape) -> float:
    """The learning rate as a share of its peak.

    Args:
        share: Done of the run, 0 to 1.
        warmup: Share of the run in which the rate rises linearly.
        shape: How it falls afterwards.
    """
    if share < warmup:
        return share / warmup
    done = min((share - warmup) / max(1.0 - warmup, 1e-9), 1.0)
    if shape == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0 - done if shape == "linear" else 1.0


@dataclass(frozen=True)
class Pace:
    """How far a run is at a step: linear from one planning of its end to the next.

    Attributes:
        step: Step of the latest planning.
        share: Share that was done then.
        end: Step at which the run will be done.
    """

    step: int
    share: float
    end: int

    def at(self, step: int) -> float:
        """The share done before ``step``."""
        if step >= self.end:
            return 1.0
        return self.share + (1.0 - self.share) * (step - self.step) / (self.end - self.step)

    def replanned(self, step: int, end: int) -> "Pace":
        """The pace from ``step`` on, for another end; the share does not jump."""
        return Pace(step, self.at(step), max(end, step + 1))


def affordable_end(step: int, left_s: float, step_s: float) -> int:
    """The step that can be reached in the time left, with a hundredth of it as reserve."""
    return step + max(1, int(0.99 * left_s / max(step_s, 1e-9)))

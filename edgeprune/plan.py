"""A plan: one level of each structure, with the units that stay; what ``plan.yaml`` holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edgeprune.atomic import atomic_write_text
from edgeprune.errors import InputError
from edgeprune.formats import parse_format

VERSION = 2


@dataclass(frozen=True)
class Plan:
    """What stays of a network.

    Attributes:
        levels: Units that stay, for every structure that was offered.
        keep: Which units stay, for the structures that lose any.
        predicted_ms: Latency the table predicts.
        distortion: Additive distortion of the plan, from the tables.
        loss: Joint output error after a refit on the scoring batches.
        gap: Relative optimality gap of the exact search the plan started from.
        formats: Names of the formats of layers that are not dense, by graph node.
    """

    levels: Mapping[str, int]
    keep: Mapping[str, list[int]] = field(default_factory=dict)
    predicted_ms: float = 0.0
    distortion: float = 0.0
    loss: float = 0.0
    gap: float = 0.0
    formats: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "version": VERSION,
            "predicted_ms": self.predicted_ms,
            "distortion": self.distortion,
            "loss": self.loss,
            "gap": self.gap,
            "levels": dict(self.levels),
            "formats": dict(self.formats),
            "keep": {name: list(units) for name, units in self.keep.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Plan":
        """The plan that ``to_json`` described.

        Raises:
            InputError: The data are not a plan of this version.
        """
        if not isinstance(data, Mapping) or data.get("version") != VERSION:
            raise InputError(f"not a plan of version {VERSION}: make it again with this edgeprune")
        try:
            return cls(
                levels={str(k): int(v) for k, v in data["levels"].items()},
                keep={str(k): [int(u) for u in v] for k, v in data["keep"].items()},
                predicted_ms=float(data["predicted_ms"]),
                distortion=float(data["distortion"]),
                loss=float(data["loss"]),
                gap=float(data["gap"]),
                formats={str(k): str(parse_format(v)) for k, v in data["formats"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"a plan lacks or garbles {error}; make it again") from error


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan as YAML, whole or not at all."""
    atomic_write_text(path, yaml.safe_dump(plan.to_json(), sort_keys=False, width=100))


def load_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        InputError: The file is missing or not a plan.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"cannot read plan {path}: {error}") from error
    return Plan.from_json(data)

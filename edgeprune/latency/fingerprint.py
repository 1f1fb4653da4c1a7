"""Who measured: the facts about a device under which its figures hold."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from edgeprune.devices import Device
from edgeprune.errors import UnavailableError
from edgeprune.target import Target

_START_S = 60.0


@dataclass(frozen=True)
class Fingerprint:
    """Everything stable that decides a latency; figures of different keys never mix.

    Attributes:
        facts: Machine, clock rules, affinity, runtime versions, threads and precision.
    """

    facts: dict[str, Any]

    @property
    def key(self) -> str:
        """Short hash of all facts."""
        text = json.dumps(self.facts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def take(device: Device, target: Target) -> Fingerprint:
    """Ask the device for its fingerprint in the setting of a target.

    Raises:
        UnavailableError: The device does not answer, or the runtime is not there.
    """
    with device.runner() as runner:
        answer = runner.request("hello", timeout_s=_START_S, runtime_name=target.runtime)
    if answer["unavailable"]:
        raise UnavailableError(f"{target.name}: {answer['unavailable']}")
    return Fingerprint(
        {
            "transport": target.transport,
            "runtime": target.runtime,
            "versions": answer["versions"],
            "threads": target.threads,
            "precision": target.precision,
            "machine": answer["machine"],
        }
    )

"""What every stage of a run needs to know."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.devices import Device
from edgeprune.latency.fingerprint import Fingerprint
from edgeprune.recipe import Recipe
from edgeprune.request import CompressRequest
from edgeprune.runtimes import Runtime
from edgeprune.target import Target
from edgeprune.task import LoadedTask
from edgeprune.workspace import Workspace

if TYPE_CHECKING:
    from edgeprune.compression.calibration import Calibration
    from edgeprune.graph.network import Network


@dataclass(frozen=True)
class Run:
    """One run: what was asked, of what, where, and the folder it writes to."""

    request: CompressRequest
    task: LoadedTask
    target: Target
    recipe: Recipe
    device: Device
    runtime: Runtime
    fingerprint: Fingerprint
    workspace: Workspace

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.workspace.folder

    @property
    def artifact_name(self) -> str:
        """What an artifact is called in its folder."""
        return f"model{self.runtime.suffix}"


@dataclass(frozen=True, eq=False)
class Subject:
    """The captured network and the data it is judged on.

    Attributes:
        network: Captured, with its structures.
        calibration: The task's batches, dealt out.
        inputs: The example inputs as a file for the device.
        key: Of the model's weights, graph and deployed shapes.
        data_key: Of the batches.
    """

    network: "Network"
    calibration: "Calibration"
    inputs: Path
    key: str
    data_key: str

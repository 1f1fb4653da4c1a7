"""What every runtime offers: ONNX to its own artifact, sessions that run it, layer times."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Arrays = tuple[npt.NDArray[Any], ...]

PRECISIONS = ("default", "f32", "bf16", "f16")


@dataclass(frozen=True)
class CompileOptions:
    """How an artifact is compiled.

    Attributes:
        threads: Threads one inference may use.
        precision: Inference precision, ``default`` leaves the choice to the runtime.
        profile: Whether the compiled model counts time by layer.
        cache_dir: Where the runtime may keep compiled models; ``None`` keeps none.
    """

    threads: int = 1
    precision: str = "default"
    profile: bool = False
    cache_dir: str | None = None


@dataclass(frozen=True)
class LayerTime:
    """One executed node of the compiled model.

    Attributes:
        name: Name the runtime gives the node.
        layer_type: Kind of node, such as ``Convolution``.
        exec_type: Name of the kernel that ran.
        original_names: Nodes of the source model that were merged into this one.
        shapes: Shapes of the outputs.
        us: Mean time of one execution in microseconds.
    """

    name: str
    layer_type: str
    exec_type: str
    original_names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    us: float


class Session(Protocol):
    """An opened artifact with its inputs in place."""

    def set_inputs(self, inputs: Arrays) -> None:
        """Put the input arrays (in the order of the model's inputs) where inference reads them."""

    def made_up_inputs(self) -> Arrays:
        """Inputs of the right shapes and types: normal numbers, zeros for integers."""

    def infer_once(self) -> None:
        """Run one inference on the inputs in place."""

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs for ``inputs``."""

    def layer_times(self) -> list[LayerTime]:
        """Executed nodes in execution order, averaged over the runs since the last call."""


class Runtime(Protocol):
    """A way to execute models. Stateless; one instance may be shared.

    Attributes:
        name: As target files call it.
        suffix: Of the file that is opened, such as ``.xml``.
    """

    name: str
    suffix: str

    def versions(self) -> dict[str, str]:
        """Version of every library that decides speed."""

    def available(self) -> str | None:
        """Why the runtime cannot be used here, or ``None``."""

    def lacks_sparse(self) -> str | None:
        """Why it cannot run sparse layers here, or ``None``."""

    def convert(self, onnx: Path, out: Path) -> Path:
        """Write the artifact made from an ONNX file to ``out``; gives the path to open."""

    def quantise_int8(
        self, onnx: Path, out: Path, batches: Iterable[Arrays], layers: Sequence[str] | None = None
    ) -> Path:
        """Write an int8 artifact, calibrated on ``batches``; gives the path to open.

        ``layers`` names the graph nodes whose layers become int8, all by default.
        """

    def load(self, artifact: Path, options: CompileOptions) -> Session:
        """Compile and open an artifact."""

    def app_program(
        self, artifact: Path, inputs: str, options: CompileOptions, seconds: float
    ) -> str:
        """Source of a program beside ``artifact`` that needs the runtime and numpy only.

        It runs the artifact on the arrays of the ``.npz`` named ``inputs`` for some seconds, and
        prints the outputs' shapes and ``median X ms``.
        """

    def size_bytes(self, artifact: Path) -> int:
        """Bytes of all files of an artifact."""


def options_from_json(fields: Mapping[str, Any]) -> CompileOptions:
    """Options sent to another process as JSON."""
    return CompileOptions(
        threads=int(fields["threads"]),
        precision=str(fields["precision"]),
        profile=bool(fields["profile"]),
        cache_dir=fields.get("cache_dir"),
    )


def as_arrays(values: Iterable[Any]) -> Arrays:
    """Contiguous arrays of ``values``."""
    return tuple(np.ascontiguousarray(value) for value in values)

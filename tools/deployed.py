"""Whether a pruned network gives the same in OpenVINO, by way of ONNX."""

import contextlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from masked_reference import flat, worst_difference
from torch import Tensor, fx

from edgeprune.errors import InputError
from edgeprune.graph.onnx_export import export_onnx
from edgeprune.runtimes.base import CompileOptions
from edgeprune.runtimes.openvino import OpenvinoRuntime

_TOLERANCE = 1e-3


def deployed_outcome(pruned: fx.GraphModule, inputs: Sequence[Tensor]) -> dict[str, Any]:
    """The columns ``onnx`` and ``openvino``: written or equal, else the reason."""
    # The exporter prints a graph that it cannot write.
    quiet = contextlib.redirect_stdout(io.StringIO())
    with tempfile.TemporaryDirectory() as folder, quiet:
        onnx = Path(folder) / "model.onnx"
        try:
            export_onnx(pruned, inputs, onnx)
        except InputError as error:
            return {"onnx": str(error), "openvino": "not written as ONNX"}
        try:
            return {"onnx": "written", "openvino": _compare(pruned, inputs, onnx)}
        except InputError as error:
            return {"onnx": "written", "openvino": str(error)}


def _compare(pruned: fx.GraphModule, inputs: Sequence[Tensor], onnx: Path) -> str:
    runtime = OpenvinoRuntime()
    artifact = runtime.convert(onnx, onnx.with_suffix(".xml"))
    session = runtime.load(artifact, CompileOptions(threads=1, precision="f32"))
    have = [torch.from_numpy(np.array(y)) for y in session.run([x.numpy() for x in inputs])]
    with torch.no_grad():
        want = flat(pruned(*(x.clone() for x in inputs)))
    worst = worst_difference(have, want)
    return "equal" if worst <= _TOLERANCE else f"differs by {worst:.1e} of the output's scale"

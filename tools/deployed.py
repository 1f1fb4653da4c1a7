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
from edgeprune.graph.onnx_open import Axes, export_open_onnx
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


def open_onnx_outcome(pruned: fx.GraphModule, tries: Sequence[Sequence[Tensor]]) -> str:
    """Whether one file with open sizes is right at all of these, the last of which it is made at.

    Dimensions that came out fixed in the file are as it says in all of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "model.onnx"
        try:
            axes = export_open_onnx(pruned, tries[-1], onnx)
            allowed = [inputs for inputs in tries if _differ_only_in(axes, inputs, tries[-1])]
            outcomes = {_compare(pruned, inputs, onnx) for inputs in allowed}
        except InputError as error:
            return str(error)
    names = ", ".join(dict.fromkeys(name for named in axes for name in named.values()))
    wrong = outcomes - {"equal"}
    return wrong.pop() if wrong else f"equal at {len(allowed)} sizes ({names})"


def _differ_only_in(axes: Axes, inputs: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(
        a == b or dim in named
        for x, y, named in zip(inputs, others, axes, strict=True)
        for dim, (a, b) in enumerate(zip(x.shape, y.shape, strict=True))
    )


def _compare(pruned: fx.GraphModule, inputs: Sequence[Tensor], onnx: Path) -> str:
    runtime = OpenvinoRuntime()
    artifact = runtime.convert(onnx, onnx.with_suffix(".xml"))
    session = runtime.load(artifact, CompileOptions(threads=1, precision="f32"))
    have = [torch.from_numpy(np.array(y)) for y in session.run([x.numpy() for x in inputs])]
    with torch.no_grad():
        want = flat(pruned(*(x.clone() for x in inputs)))
    worst = worst_difference(have, want)
    return "equal" if worst <= _TOLERANCE else f"differs by {worst:.1e} of the output's scale"

"""OpenVINO on the CPU: ONNX to IR, int8 by NNCF, sessions with per-layer times."""

import errno
import importlib.util
import mmap
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.atomic import atomic_path
from edgeprune.errors import InputError, UnavailableError
from edgeprune.kernels.extension import openvino_extension
from edgeprune.kernels.onnx_node import CONVOLUTION, OPERATOR
from edgeprune.runtimes.base import PRECISIONS, Arrays, CompileOptions, LayerTime, as_arrays
from edgeprune.runtimes.openvino_int8 import last_line, quantise
from edgeprune.runtimes.openvino_program import DENSE, PROGRAM, SPARSE
from edgeprune.runtimes.openvino_recurrent import name_recurrent_layers, recurrent_layers
from edgeprune.runtimes.telemetry import silence

# In the bytes of an ONNX file or an IR; others have no reason to hold the word.
_SPARSE = (OPERATOR.encode(), CONVOLUTION.encode())
# OpenVINO counts a layer's time in whole microseconds and rounds down, on average by this much.
_ROUNDED_DOWN_US = 0.5


class OpenvinoRuntime:
    """Intel's OpenVINO. The artifact is an IR: ``NAME.xml`` with ``NAME.bin`` beside it."""

    name = "openvino"
    suffix = ".xml"

    def versions(self) -> dict[str, str]:
        """Versions of OpenVINO as built and installed."""
        return {"openvino": str(_openvino().__version__)}

    def available(self) -> str | None:
        """Why OpenVINO cannot be used here, or ``None``."""
        if importlib.util.find_spec("openvino") is None:
            return "openvino is not installed: pip install 'edgeprune[openvino]'"
        return None

    def lacks_sparse(self) -> str | None:
        """Why the sparse operator cannot run here, or ``None``; compiles it where that is due."""
        try:
            core_with_operator()
        except UnavailableError as error:
            return str(error)
        return None

    def convert(self, onnx: Path, out: Path) -> Path:
        """Write ``out`` (made to end in ``.xml``) with float32 weights from an ONNX file.

        Raises:
            InputError: OpenVINO cannot read the file.
            WorkspaceError: The disk is full, or the folder cannot be written.
        """
        openvino = _openvino()
        model = _convert(openvino, onnx)
        return _save(openvino, model, out)

    def quantise_int8(
        self, onnx: Path, out: Path, batches: Iterable[Arrays], layers: Sequence[str] | None = None
    ) -> Path:
        """Post-training int8 of weights and activations by NNCF, calibrated on ``batches``.

        Args:
            onnx: The float model, static shapes.
            out: The IR to write.
            batches: Input tuples; each must have the shapes of the model.
            layers: Graph nodes whose layers become int8; all by default.

        Raises:
            InputError: OpenVINO cannot read the file, or NNCF cannot quantise the model.
            UnavailableError: NNCF is not installed.
            WorkspaceError: The disk is full, or the folder cannot be written.
        """
        openvino = _openvino()
        quantised = quantise(_convert(openvino, onnx), onnx, batches, layers)
        return _save(openvino, quantised, out)

    def app_program(
        self, artifact: Path, inputs: str, options: CompileOptions, seconds: float
    ) -> str:
        """A program that needs openvino and numpy, and for sparse layers the operator."""
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": options.threads,
            "NUM_STREAMS": 1,
        }
        if options.precision != "default":
            settings["INFERENCE_PRECISION_HINT"] = options.precision
        return PROGRAM.format(
            artifact=artifact.name,
            inputs=inputs,
            settings=settings,
            seconds=seconds,
            **(SPARSE if _holds_sparse_layers(artifact) else DENSE),
        )

    def load(self, artifact: Path, options: CompileOptions) -> "OpenvinoSession":
        """Compile an IR for one inference at a time.

        Raises:
            InputError: The file is missing or no model, or the precision is unknown.
        """
        if options.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise InputError(f"precision {options.precision!r} is not known; use one of {known}")
        if not artifact.is_file():
            raise InputError(f"{artifact} is not there: give an OpenVINO .xml file")
        sparse = _holds_sparse_layers(artifact)
        core = core_with_operator() if sparse else _openvino().Core()
        try:
            compiled = core.compile_model(str(artifact), "CPU", _properties(options))
        except RuntimeError as error:
            raise InputError(f"OpenVINO cannot open {artifact}: {last_line(error)}") from error
        return OpenvinoSession(compiled)

    def size_bytes(self, artifact: Path) -> int:
        """Bytes of the ``.xml`` and the ``.bin``."""
        return sum(
            path.stat().st_size
            for path in (artifact, artifact.with_suffix(".bin"))
            if path.exists()
        )


class OpenvinoSession:
    """A compiled model with one inference request."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._inputs: Arrays = ()
        self._runs = 0
        self._seen_runs = 0
        self._seen_us: dict[str, float] = {}

    def set_inputs(self, inputs: Arrays) -> None:
        """Bind the arrays without copying; integer inputs are cast to what the model wants.

        Raises:
            InputError: Another number of inputs than the model has, or other shapes.
        """
        ports, openvino = self._compiled.inputs, _openvino()
        _check_shapes(openvino, ports, inputs)
        self._inputs = as_arrays(
            np.asarray(value, dtype=port.get_element_type().to_dtype())
            for port, value in zip(ports, inputs, strict=True)
        )
        for position, value in enumerate(self._inputs):
            self._request.set_input_tensor(position, openvino.Tensor(value, shared_memory=True))

    def made_up_inputs(self) -> Arrays:
        """Inputs of the right shapes and types: normal numbers, zeros for integers.

        Raises:
            InputError: The model leaves a shape open.
        """
        random = np.random.default_rng(0)
        values = []
        for port in self._compiled.inputs:
            if port.get_partial_shape().is_dynamic:
                raise InputError(f"the shape of input {port.any_name} is open: give example inputs")
            dtype = port.get_element_type().to_dtype()
            shape = tuple(port.shape)
            floating = np.issubdtype(dtype, np.floating)
            values.append(random.standard_normal(shape) if floating else np.zeros(shape))
            values[-1] = values[-1].astype(dtype)
        return tuple(values)

    def infer_once(self) -> None:
        """Run one inference on the bound inputs."""
        self._runs += 1
        self._request.infer()

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs for ``inputs``, copied out of the runtime's memory."""
        self.set_inputs(inputs)
        self.infer_once()
        count = len(self._compiled.outputs)
        return tuple(np.array(self._request.get_output_tensor(i).data) for i in range(count))

    def layer_times(self) -> list[LayerTime]:
        """Executed nodes in execution order, averaged over the runs since the last call.

        Needs ``profile=True`` when loading. The runtime keeps means over all runs and rounds them
        down; asking once after the first, cold runs keeps those out of what follows.
        """
        known = {op.get_friendly_name(): op for op in self._compiled.get_runtime_model().get_ops()}
        before, self._seen_runs = self._seen_runs, self._runs
        layers = []
        for entry in self._request.get_profiling_info():
            if not str(entry.status).endswith("EXECUTED"):
                continue
            node = known.get(entry.node_name)
            total_us = self._runs * (entry.real_time.total_seconds() * 1e6 + _ROUNDED_DOWN_US)
            earlier_us = self._seen_us.get(entry.node_name, 0.0)
            self._seen_us[entry.node_name] = total_us
            layers.append(
                LayerTime(
                    name=entry.node_name,
                    layer_type=entry.node_type,
                    exec_type=entry.exec_type,
                    original_names=_original_names(node),
                    shapes=_output_shapes(node),
                    us=max(0.0, (total_us - earlier_us) / max(1, self._runs - before)),
                )
            )
        return layers


def _check_shapes(openvino: Any, ports: Sequence[Any], inputs: Arrays) -> None:
    if len(inputs) != len(ports):
        raise InputError(f"the model has {len(ports)} inputs, {len(inputs)} were given")
    for position, (port, value) in enumerate(zip(ports, inputs, strict=True)):
        wanted, given = port.get_partial_shape(), openvino.PartialShape(list(np.shape(value)))
        if not wanted.compatible(given):
            raise InputError(
                f"input {position} has shape {given}, the model takes {wanted}; "
                "give inputs of the shape it was deployed at"
            )


def _original_names(node: Any) -> tuple[str, ...]:
    if node is None or "originalLayersNames" not in node.rt_info:
        return ()
    text = str(node.rt_info["originalLayersNames"].astype(str))
    return tuple(name for name in text.split(",") if name)


def _output_shapes(node: Any) -> tuple[tuple[int, ...], ...]:
    if node is None:
        return ()
    shapes = (output.get_partial_shape() for output in node.outputs())
    return tuple(tuple(shape.to_shape()) for shape in shapes if shape.is_static)


def _openvino() -> Any:
    silence()
    try:
        import openvino
    except ImportError as error:
        raise UnavailableError(
            "openvino is not installed: pip install 'edgeprune[openvino]'"
        ) from error
    return openvino


def core_with_operator() -> Any:
    """A core of OpenVINO that knows our operator.

    Raises:
        UnavailableError: OpenVINO or the operator cannot be had here.
    """
    core = _openvino().Core()
    extension = openvino_extension()
    try:
        core.add_extension(str(extension))
    except RuntimeError as error:
        raise UnavailableError(
            f"OpenVINO cannot load the sparse operator {extension}: {last_line(error)}; "
            "install edgeprune again"
        ) from error
    return core


def _holds_sparse_layers(model: Path) -> bool:
    with model.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return any(data.find(name) >= 0 for name in _SPARSE)


def _convert(openvino: Any, onnx: Path) -> Any:
    try:
        if _holds_sparse_layers(onnx):
            model = core_with_operator().read_model(str(onnx))
        else:
            model = openvino.convert_model(str(onnx))
            if not recurrent_layers(model):
                return model
            model = openvino.Core().read_model(str(onnx))
        name_recurrent_layers(model)
        return model
    except UnavailableError:
        raise
    except Exception as error:  # the converter raises many unrelated types
        raise InputError(f"OpenVINO cannot convert {onnx}: {last_line(error)}") from error


def _save(openvino: Any, model: Any, out: Path) -> Path:
    out = out.with_suffix(".xml")
    with atomic_path(out) as partial:
        try:
            openvino.save_model(model, str(partial), compress_to_fp16=False)
        except RuntimeError as error:
            if "iostream" not in str(error):
                raise
            # It never says why it could not write; the folder is new and ours, so it is no room.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    return out


def _properties(options: CompileOptions) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": options.threads,
        "NUM_STREAMS": 1,
        "PERF_COUNT": options.profile,
    }
    if options.precision != "default":
        properties["INFERENCE_PRECISION_HINT"] = options.precision
    if options.cache_dir is not None:
        properties["CACHE_DIR"] = options.cache_dir
    return properties

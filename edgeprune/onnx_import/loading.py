"""Loading an ONNX file as a module."""

from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune import console
from edgeprune.errors import InputError
from edgeprune.onnx_import.activations import recognise_activations
from edgeprune.onnx_import.assembly import assemble
from edgeprune.onnx_import.layers import recognise_layers
from edgeprune.onnx_import.model import InputSpec, OnnxModel
from edgeprune.onnx_import.parsing import GraphParser
from edgeprune.onnx_import.reading import (
    NodeChecker,
    add_external_weights,
    opsets,
    read_file,
    with_functions_inlined,
)
from edgeprune.onnx_import.types import rounded_name, torch_type

if TYPE_CHECKING:
    import onnx


def load_onnx(path: Path | str) -> OnnxModel:
    """An ONNX file of any framework as a module in eval mode, with its weights as parameters.

    All floating types become float32. What the model computes of shapes is computed anew for
    each input, so a batch or sequence that the file leaves open stays open.

    Raises:
        InputError: The file is missing, damaged, or needs files outside its folder; or it holds an
            operator that cannot be captured, which the line names with its node.
        UnavailableError: The package onnx is not installed.
    """
    path = Path(path).expanduser()
    proto = read_file(path)
    add_external_weights(proto, path)
    model = _build(with_functions_inlined(proto))
    for note in model.notes:
        console.message(f"{path.name}: {note}")
    return model


def input_specs(path: Path | str) -> list[InputSpec]:
    """The inputs that an ONNX file declares, without reading its weights.

    Raises:
        InputError: The file is missing or damaged, or takes something else than tensors.
        UnavailableError: The package onnx is not installed.
    """
    graph = read_file(Path(path).expanduser()).graph
    stored = {tensor.name for tensor in graph.initializer}
    return [_input_spec(value) for value in graph.input if value.name not in stored]


def module_of(proto: "onnx.ModelProto") -> OnnxModel:
    """The module of a model in memory; like :func:`load_onnx`.

    Raises:
        InputError: As for a file.
    """
    return _build(with_functions_inlined(proto))


def _build(proto: "onnx.ModelProto") -> OnnxModel:
    parser = GraphParser(opsets(proto), NodeChecker(proto))
    graph = parser.parse(proto.graph, {})
    recognise_layers(graph)
    recognise_activations(graph)
    declared = {value.name: value for value in proto.graph.input}
    inputs = [_input_spec(declared[name]) for name in graph.inputs]
    kinds = (declared[name].type.tensor_type.elem_type for name in graph.inputs)
    rounded = parser.rounded.union(name for kind in kinds if (name := rounded_name(kind)))
    notes = [f"its {name} numbers are read as float32" for name in sorted(rounded)]
    return assemble(graph, inputs, graph.outputs, notes)


def _input_spec(value: "onnx.ValueInfoProto") -> InputSpec:
    kind = value.type.tensor_type
    dtype = torch_type(kind.elem_type)
    if not value.type.HasField("tensor_type") or dtype is None:
        raise InputError(f"input '{value.name}' is no tensor of numbers; only those can be pruned")
    shape = tuple(_size(d) for d in kind.shape.dim) if kind.HasField("shape") else None
    return InputSpec(value.name, shape, dtype)


def _size(dim: "onnx.TensorShapeProto.Dimension") -> int | str | None:
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return int(dim.dim_value)
    return str(dim.dim_param) or None

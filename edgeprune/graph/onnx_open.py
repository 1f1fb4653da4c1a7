"""Writes a graph module as ONNX with those sizes open that the network has open.

The file that is deployed has the sizes at which it was timed, and nodes named after the graph's
(``onnx_export``). This one is for use at other sizes: torch.onnx makes it from an exported program,
which follows symbolic sizes.
"""

import contextlib
import copy
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from edgeprune.atomic import atomic_path
from edgeprune.errors import InputError, UnavailableError
from edgeprune.graph.complex_pairs import with_real_pairs
from edgeprune.graph.onnx_attention import with_plain_attention
from edgeprune.graph.onnx_export import names_of_the_file, refuse_hidden_writes, value_names
from edgeprune.graph.onnx_forms import onnx_form
from edgeprune.graph.onnx_names import rename_values
from edgeprune.graph.running import first_line, quiet

_OPSET = 18

Axes = tuple[dict[int, str], ...]


def open_axes(module: fx.GraphModule) -> Axes:
    """Per input the open dimensions by name; equal sizes have equal names.

    Names are those of the ONNX file that the graph came from, else ``batch`` for the first
    dimension of the first input, and the input's name and dimension for others.
    """
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    names: dict[Any, str] = {}
    for node in inputs:
        given = node.meta.get("onnx_axes") or ()
        for dim, origin in enumerate(node.meta.get("dynamic") or ()):
            if origin is not None:
                own = given[dim] if dim < len(given) and isinstance(given[dim], str) else None
                usual = "batch" if (node, dim) == (inputs[0], 0) else f"{node.name}_{dim}"
                names.setdefault(origin, own or usual)
    return tuple(
        {d: names[o] for d, o in enumerate(node.meta.get("dynamic") or ()) if o is not None}
        for node in inputs
    )


def export_open_onnx(module: fx.GraphModule, inputs: Sequence[Tensor], path: Path | str) -> Axes:
    """Write a graph module with its open sizes open.

    Args:
        module: A captured or shrunk graph.
        inputs: Tensors it runs on, of any sizes.
        path: The file; inputs and outputs are called as ``onnx_export`` calls them.

    Returns:
        Per input the dimensions that are open in the file, by name.

    Raises:
        InputError: The model has no open size, or cannot be written with it.
        UnavailableError: onnxscript is not installed.
        WorkspaceError: The disk is full, or the folder cannot be written.
    """
    axes = open_axes(module)
    if not any(axes):
        raise InputError("the model has no open size: its batches have those of example_inputs()")
    refuse_hidden_writes(module.graph)
    plain = with_plain_attention(with_real_pairs(module))
    example = _without_ones(inputs, axes)
    with atomic_path(Path(path)) as partial:
        try:
            _export(plain, example, axes, partial)
        except InputError:
            _export(_with_known_operators(plain), example, axes, partial)
        _name_axes(partial, axes)
    return axes


def _without_ones(inputs: Sequence[Tensor], axes: Axes) -> tuple[Tensor, ...]:
    """Inputs twice along open dimensions of size 1, which an exporter would take to be fixed."""
    result = []
    for value, named in zip(inputs, axes, strict=True):
        for dim in named:
            value = torch.cat([value, value], dim) if value.shape[dim] == 1 else value
        result.append(value)
    return tuple(result)


def _with_known_operators(module: fx.GraphModule) -> fx.GraphModule:
    """A copy in which what the exporter does not know is computed by what it does."""
    graph = copy.deepcopy(module.graph)
    for node in graph.nodes:
        if node.op == "call_function":
            node.target = onnx_form(node)
    return fx.GraphModule(module, graph)


def _export(module: fx.GraphModule, inputs: tuple[Tensor, ...], axes: Axes, path: Path) -> None:
    names, outputs = value_names(module.graph)
    shapes = tuple(dict.fromkeys(named, torch.export.Dim.DYNAMIC) for named in axes)
    with quiet(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        try:
            torch.onnx.export(
                module.eval(),
                inputs,
                str(path),
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=names,
                output_names=outputs,
                opset_version=_OPSET,
                external_data=False,
            )
        except ModuleNotFoundError as error:
            raise UnavailableError(
                "writing open sizes needs onnxscript: pip install 'edgeprune[openvino]'"
            ) from error
        except Exception as error:
            # Exporters raise whatever the operators of a model raise in them.
            cause = error.__cause__ or error
            raise InputError(
                f"the model cannot be written with open sizes: {first_line(cause)}"
            ) from error
    known = names_of_the_file(module.graph, names, outputs)
    if known:
        rename_values(path, known)


def _name_axes(path: Path, axes: Axes) -> None:
    """Give symbolic sizes their names, in place.

    Raises:
        InputError: A size came out fixed.
    """
    import onnx

    model = onnx.load(path)
    symbols: dict[str, str] = {}
    for value, named in zip(model.graph.input, axes, strict=True):
        sizes = value.type.tensor_type.shape.dim
        for dim, name in named.items():
            if not sizes[dim].dim_param:
                raise InputError(
                    f"the model cannot be written with open sizes: dimension {dim} of "
                    f"'{value.name}' is {sizes[dim].dim_value} in the file"
                )
            symbols[sizes[dim].dim_param] = name
    for size in _symbolic(model.graph):
        size.dim_param = re.sub(r"\w+", lambda m: symbols.get(m[0], m[0]), size.dim_param)
    onnx.save(model, path)


def _symbolic(graph: Any) -> Iterator[Any]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield from (d for d in value.type.tensor_type.shape.dim if d.dim_param)

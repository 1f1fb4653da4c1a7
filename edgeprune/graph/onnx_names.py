"""Inputs and outputs of a written ONNX file: all there, and called by any text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor


def keep_inputs(path: Path, names: Sequence[str], examples: Sequence[Tensor]) -> None:
    """Put inputs that nothing reads back into a file, in place; exporters leave them out.

    Raises:
        OSError: The file cannot be written.
    """
    import onnx

    model = onnx.load(path)
    known = {value.name: value for value in model.graph.input}
    if len(known) == len(names):
        return
    inputs = [
        known.get(name)
        or onnx.helper.make_tensor_value_info(
            name,
            onnx.helper.np_dtype_to_tensor_dtype(example.numpy().dtype),
            list(example.shape),
        )
        for name, example in zip(names, examples, strict=True)
    ]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    onnx.save(model, path)


def rename_values(path: Path, names: Mapping[str, str]) -> None:
    """Give inputs and outputs of a file other names, in place.

    A value inside that has one of those names already gets another.

    Raises:
        OSError: The file cannot be written.
    """
    import onnx

    model = onnx.load(path)
    graph = model.graph
    inside = {name for node in graph.node for name in node.output}
    inside |= {tensor.name for tensor in graph.initializer}
    taken = {*inside, *names.values()}
    mapping = dict(names)
    for name in sorted(inside.intersection(names.values()) - set(names)):
        fresh = next(x for i in range(len(taken) + 1) if (x := f"{name}_inside_{i}") not in taken)
        taken.add(fresh)
        mapping[name] = fresh
    for node in graph.node:
        _rename_all(node.input, mapping)
        _rename_all(node.output, mapping)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = mapping.get(value.name, value.name)
    onnx.save(model, path)


def _rename_all(names: Any, mapping: Mapping[str, str]) -> None:
    for place, name in enumerate(names):
        names[place] = mapping.get(name, name)

"""Writes an ONNX model in int8 as DeepSparse reads it: linear layers between Q and DQ nodes.

For benchmarks only: activations get one scale each from a single sample.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import openvino as ov
from onnx import helper, numpy_helper


def write_quantised(path: Path, sample: npt.NDArray[np.float32], out: Path) -> Path:
    """Quantise every product with a constant weight; unsigned activations, signed weights."""
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = [
        node
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in constants
    ]
    ranges = _ranges(model, [node.input[0] for node in layers], sample)
    for node in layers:
        low, high = ranges[node.input[0]]
        scale = max((high - low) / 255, 1e-8)
        zero = int(np.clip(round(-low / scale), 0, 255))
        weight = numpy_helper.to_array(constants[node.input[1]])
        step = max(float(np.abs(weight).max()) / 127, 1e-8)
        rounded = np.rint(weight / step).astype(np.int8)
        _between(model.graph, node, 0, (np.float32(scale), np.uint8(zero)), None)
        _between(model.graph, node, 1, (np.float32(step), np.int8(0)), rounded)
    onnx.save(model, out)
    return out


def _ranges(
    model: onnx.ModelProto, names: list[str], sample: npt.NDArray[np.float32]
) -> dict[str, tuple[float, float]]:
    """Least and greatest value of tensors inside a model."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    inside = sorted(set(names) - {x.name for x in model.graph.input})
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in inside)
    compiled = ov.compile_model(ov.convert_model(probe), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(sample)
    values = {name: found[compiled.output(name)] for name in inside}
    values |= {x.name: sample for x in model.graph.input}
    return {
        name: (min(0.0, float(v.min())), max(0.0, float(v.max()))) for name, v in values.items()
    }


def _between(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    place: int,
    parameters: tuple[np.generic, np.generic],
    rounded: npt.NDArray[np.int8] | None,
) -> None:
    """Put Q and DQ (only DQ for a rounded weight) in front of an input of a node."""
    name = f"{node.name}.{place}"
    source = node.input[place]
    for suffix, value in zip(("scale", "zero"), parameters, strict=True):
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{name}.{suffix}"))
    constants = [f"{name}.scale", f"{name}.zero"]
    at = list(graph.node).index(node)
    quantised = f"{name}.quantised"
    if rounded is None:
        made = helper.make_node("QuantizeLinear", [source, *constants], [quantised], f"{name}.q")
        graph.node.insert(at, made)
        at += 1
    else:
        graph.initializer.append(numpy_helper.from_array(rounded, quantised))
    back = helper.make_node(
        "DequantizeLinear", [quantised, *constants], [f"{name}.dq"], f"{name}.d"
    )
    graph.node.insert(at, back)
    node.input[place] = f"{name}.dq"

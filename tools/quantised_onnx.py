"""Writes an ONNX model in int8 as DeepSparse reads it: linear layers as products of integers.

For benchmarks only: activations get one scale each from a single sample.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import openvino as ov
from onnx import helper, numpy_helper


def write_quantised(path: Path, sample: npt.NDArray[np.float32], out: Path) -> Path:
    """Quantise every product with a constant weight and its bias: bytes in, 32-bit sums, floats."""
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = [
        node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in constants
    ]
    probe = out.with_suffix(".probe.onnx")
    ranges = _ranges(model, [node.input[0] for node in layers], sample, probe)
    for node in layers:
        bias = next(found for found in model.graph.node if node.output[0] in found.input)
        _replace(model.graph, node, bias, constants, ranges[node.input[0]])
    onnx.save(model, out)
    return out


def _ranges(
    model: onnx.ModelProto, names: list[str], sample: npt.NDArray[np.float32], probed: Path
) -> dict[str, tuple[float, float]]:
    """Least and greatest value of tensors inside a model."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    inside = sorted(set(names) - {x.name for x in model.graph.input})
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in inside)
    onnx.save(probe, probed)
    model_of_all = ov.Core().read_model(probed)
    compiled = ov.compile_model(model_of_all, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(sample)
    values = {name: found[compiled.output(name)] for name in inside}
    values |= {x.name: sample for x in model.graph.input}
    return {
        name: (min(0.0, float(v.min())), max(0.0, float(v.max()))) for name, v in values.items()
    }


def _replace(
    graph: onnx.GraphProto,
    product: onnx.NodeProto,
    add: onnx.NodeProto,
    constants: dict[str, onnx.TensorProto],
    limits: tuple[float, float],
) -> None:
    low, high = limits
    scale = max((high - low) / 255, 1e-8)
    zero = int(np.clip(round(-low / scale), 0, 255))
    weight = numpy_helper.to_array(constants[product.input[1]])
    step = max(float(np.abs(weight).max()) / 127, 1e-8)
    place = 1 if add.input[0] == product.output[0] else 0
    bias = numpy_helper.to_array(constants[add.input[place]])
    name = product.name
    made: dict[str, npt.NDArray[np.generic]] = {
        "scale": np.asarray(scale, np.float32),
        "zero": np.asarray(zero, np.uint8),
        "weight": np.rint(weight / step).astype(np.int8),
        "weight_zero": np.asarray(0, np.int8),
        "bias": np.rint(bias / (scale * step)).astype(np.int32),
        "product_scale": np.asarray(scale * step, np.float32),
    }
    for key, value in made.items():
        graph.initializer.append(numpy_helper.from_array(value, f"{name}.{key}"))
    at = list(graph.node).index(product)

    def node(kind: str, inputs: list[str], output: str, **attributes: int) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output], f"{name}.{kind}", **attributes)

    x = [product.input[0], f"{name}.scale", f"{name}.zero"]
    factors = [f"{name}.x", f"{name}.weight", f"{name}.zero", f"{name}.weight_zero"]
    nodes = [
        node("QuantizeLinear", x, f"{name}.x"),
        node("MatMulInteger", factors, f"{name}.sum"),
        node("Add", [f"{name}.sum", f"{name}.bias"], f"{name}.biased"),
        node("Cast", [f"{name}.biased"], f"{name}.float", to=onnx.TensorProto.FLOAT),
        node("Mul", [f"{name}.float", f"{name}.product_scale"], add.output[0]),
    ]
    for offset, one in enumerate(nodes):
        graph.node.insert(at + offset, one)
    graph.node.remove(product)
    graph.node.remove(add)

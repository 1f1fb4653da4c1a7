"""Layers, activations, recurrent layers, branches and shapes, as files spell them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from in_onnxruntime import graph_of, numbers, run
from onnx import helper
from torch import Tensor, nn

from edgeprune.graph.capture import capture
from edgeprune.graph.network import analyse
from edgeprune.graph.onnx_export import export_onnx
from edgeprune.onnx_import import load_onnx
from edgeprune.onnx_import.loading import module_of

node = helper.make_node


def operators(model: nn.Module, *inputs: Tensor) -> list[str]:
    graph = capture(model, inputs).module.graph
    found = [str(n.target) for n in graph.nodes if n.op == "call_function"]
    return [name.removeprefix("aten.").partition(".")[0] for name in found]


def test_tied_matrices_stay_one_parameter() -> None:
    """A table of embeddings that is also the head, through a transpose."""
    made = graph_of(
        [
            node("Cast", ["x"], ["ids"], to=7),
            node("Gather", ["table", "ids"], ["e"]),
            node("Transpose", ["table"], ["t"], perm=[1, 0]),
            node("MatMul", ["e", "t"], ["y"]),
        ],
        {"x": [2, 3]},
        ["y"],
        {"table": numbers(9, 4)},
    )
    model = module_of(made)
    assert [name for name, _ in model.named_parameters()] == ["table"]
    assert operators(model, torch.zeros(2, 3)) == ["to", "embedding", "linear"]


def test_equal_vectors_that_an_exporter_merged_do_not_tie_layers() -> None:
    layers = [
        node("Gemm", ["x", "a", "zeros"], ["p"], name="/first/Gemm"),
        node("Relu", ["p"], ["q"]),
        node("Gemm", ["q", "b", "zeros"], ["r"], name="/second/Gemm"),
        node("Relu", ["r"], ["s"]),
        node("Gemm", ["s", "c"], ["y"], name="/third/Gemm"),
    ]
    matrices = {"a": numbers(4, 8), "b": numbers(8, 8), "c": numbers(8, 2)}
    made = graph_of(layers, {"x": [2, 4]}, ["y"], {**matrices, "zeros": np.zeros(8, np.float32)})
    network = analyse(capture(module_of(made), (torch.zeros(2, 4),)))
    assert [s.units for s in network.structures.values()] == [8, 8]


@pytest.mark.parametrize("first", [True, False])
def test_the_bias_of_a_product_is_taken_in_where_nothing_else_reads_the_product(
    first: bool,
) -> None:
    terms = ["b", "p"] if first else ["p", "b"]
    layer = [node("MatMul", ["x", "w"], ["p"]), node("Add", terms, ["y"])]
    constants = {"w": numbers(4, 6), "b": numbers(6)}
    x = torch.zeros(2, 4)
    alone = module_of(graph_of(layer, {"x": [2, 4]}, ["y"], constants))
    assert operators(alone, x) == ["linear"]
    shared = module_of(graph_of(layer, {"x": [2, 4]}, ["y", "p"], constants))
    assert operators(shared, x) == ["linear", "add"]


def erf_gelu(scaled_last: bool) -> list[onnx.NodeProto]:
    inner = [
        node("Div", ["h", "root"], ["d"]),
        node("Erf", ["d"], ["e"]),
        node("Add", ["e", "one"], ["f"]),
    ]
    if scaled_last:
        return [*inner, node("Mul", ["h", "f"], ["g"]), node("Mul", ["g", "half"], ["y"])]
    return [*inner, node("Mul", ["h", "half"], ["g"]), node("Mul", ["g", "f"], ["y"])]


ACTIVATIONS = {
    "gelu": erf_gelu(True),
    "gelu, scaled first": erf_gelu(False),
    "silu": [node("Sigmoid", ["h"], ["s"]), node("Mul", ["s", "h"], ["y"])],
    "hardswish": [
        node("Add", ["h", "three"], ["a"]),
        node("Clip", ["a", "zero", "six"], ["c"]),
        node("Mul", ["h", "c"], ["m"]),
        node("Div", ["m", "six"], ["y"]),
    ],
    "mish": [
        node("Softplus", ["h"], ["s"]),
        node("Tanh", ["s"], ["t"]),
        node("Mul", ["h", "t"], ["y"]),
    ],
}
SCALARS = {"root": 2**0.5, "one": 1, "half": 0.5, "three": 3, "zero": 0, "six": 6, "odd": 1.3}
CONSTANTS = {name: np.float32(value) for name, value in SCALARS.items()}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_recognised(name: str, tmp_path: Path) -> None:
    nodes = [node("Neg", ["x"], ["h"]), *ACTIVATIONS[name]]
    made = graph_of(nodes, {"x": [3, 50]}, ["y"], CONSTANTS)
    onnx.save(made, tmp_path / "m.onnx")
    x = 4 * torch.randn(3, 50)
    model = load_onnx(tmp_path / "m.onnx")
    assert operators(model, x) == ["neg", name.partition(",")[0]]
    want = run(tmp_path / "m.onnx", x)[0]
    np.testing.assert_allclose(model(x)[0].numpy(), want, rtol=1e-5, atol=1e-5)


def test_what_is_nearly_an_activation_stays_as_it_is() -> None:
    quick = [
        node("Mul", ["x", "odd"], ["o"]),
        node("Sigmoid", ["o"], ["s"]),
        node("Mul", ["s", "x"], ["y"]),
    ]
    found = operators(module_of(graph_of(quick, {"x": [4]}, ["y"], CONSTANTS)), torch.ones(4))
    assert found == ["mul", "sigmoid", "mul"]
    gate = [node("Sigmoid", ["x"], ["s"]), node("Mul", ["s", "x"], ["y"])]
    read_twice = module_of(graph_of(gate, {"x": [4]}, ["y", "s"]))
    assert operators(read_twice, torch.ones(4)) == ["sigmoid", "mul"]


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_recurrent_layers_are_torchs_own_and_prunable(
    layer: type[nn.Module], both: bool, tmp_path: Path
) -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = layer(6, 8, batch_first=True, bidirectional=both)
            self.head = nn.Linear(16 if both else 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0])

    torch.manual_seed(0)
    net, path, out = Tagger().eval(), tmp_path / "rnn.onnx", tmp_path / "out.onnx"
    x = torch.randn(2, 5, 6)
    torch.onnx.export(
        net, (x,), str(path), dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}
    )
    model = load_onnx(path)
    with torch.no_grad():
        np.testing.assert_allclose(model(x)[0].numpy(), run(path, x)[0], rtol=1e-5, atol=1e-5)
    for others in ((), (torch.randn(3, 5, 6),)):  # a fixed batch, then an open one
        network = analyse(capture(model, (x,), others or None))
        (structure,) = network.structures.values()
        assert (structure.kind, structure.units) == ("hidden", 8)
        shrunk = network.shrink({structure.name: [0, 3, 4]})
        export_onnx(shrunk, (x,), out)
        with torch.no_grad():
            np.testing.assert_allclose(run(out, x)[0], shrunk(x)[0].numpy(), rtol=1e-5, atol=1e-5)


def test_a_branch_that_a_shape_decides_is_followed() -> None:
    def branch(name: str, operator: str) -> onnx.GraphProto:
        result = helper.make_tensor_value_info(f"{name}_y", onnx.TensorProto.FLOAT, None)
        return helper.make_graph([node(operator, ["x"], [f"{name}_y"])], name, [], [result])

    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "first"], ["n"]),
        node("Equal", ["n", "two"], ["c"]),
        node("If", ["c"], ["y"], then_branch=branch("a", "Neg"), else_branch=branch("b", "Exp")),
    ]
    constants = {"first": np.int64(0), "two": np.int64(2)}
    model = module_of(graph_of(nodes, {"x": ["n", 3]}, ["y"], constants))
    assert operators(model, torch.ones(2, 3)) == ["neg"]
    assert operators(model, torch.ones(4, 3)) == ["exp"]


def test_shapes_are_computed_without_reading_data(tmp_path: Path) -> None:
    """Sizes through arithmetic, a mask that is made of them, and a reshape back."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Gather", ["s", "one"], ["l"]),
        node("Mul", ["n", "l"], ["nl"]),
        node("Unsqueeze", ["nl", "axes"], ["nl1"]),
        node("Concat", ["nl1", "rest"], ["flat"], axis=0),
        node("Reshape", ["x", "flat"], ["rows"]),
        node("MatMul", ["rows", "w"], ["made"]),
        node("Unsqueeze", ["n", "axes"], ["n1"]),
        node("Concat", ["n1", "rest", "width"], ["back"], axis=0),
        node("Reshape", ["made", "back"], ["y"]),
        node("Range", ["zero", "l", "one"], ["places"]),
        node("Cast", ["places"], ["numbers"], to=1),
        node("Unsqueeze", ["numbers", "axes_after"], ["column"]),
        node("Add", ["y", "column"], ["z"]),
    ]
    constants = {
        "zero": np.int64(0),
        "one": np.int64(1),
        "axes": np.array([0]),
        "axes_after": np.array([1]),
        "rest": np.array([-1]),
        "width": np.array([8]),
        "w": numbers(4, 8),
    }
    path = tmp_path / "m.onnx"
    onnx.save(graph_of(nodes, {"x": ["n", "l", 4]}, ["z"], constants), path)
    captured = capture(load_onnx(path), (torch.randn(1, 5, 4),), (torch.randn(3, 7, 4),))
    assert not captured.notes
    for shape in ((1, 5, 4), (3, 7, 4), (2, 90, 4)):
        x = torch.randn(shape)
        np.testing.assert_allclose(
            captured.module(x)[0].detach().numpy(), run(path, x)[0], rtol=1e-5, atol=1e-5
        )


def test_example_inputs_need_a_size_for_what_is_open() -> None:
    model = module_of(graph_of([node("Relu", ["x"], ["y"])], {"x": ["batch", 3]}, ["y"]))
    (x,) = model.example_inputs(batch=2)
    assert x.shape == (2, 3)

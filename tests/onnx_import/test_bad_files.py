"""Whatever is wrong with a file is told in one line that names the place and the remedy."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from in_onnxruntime import graph_of, numbers
from onnx import TensorProto, helper

from edgeprune.errors import EdgepruneError, InputError
from edgeprune.graph.capture import capture
from edgeprune.onnx_import import load_onnx
from edgeprune.onnx_import.loading import module_of

node = helper.make_node


def linear() -> onnx.ModelProto:
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    return graph_of(nodes, {"x": ["n", 4]}, ["y"], {"w": numbers(4, 300)})


def refused(path: Path, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_onnx(path)
    assert "\n" not in str(caught.value)


def test_files_that_are_missing_foreign_or_cut_off(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "does not exist")
    for name, content in {"empty": b"", "text": b"no model at all", "zeros": bytes(999)}.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
        refused(tmp_path / f"{name}.onnx", f"{name}.onnx (is damaged|holds no ONNX graph)")
    whole = linear().SerializeToString()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut.onnx", "damaged|holds no ONNX graph")


def with_external_data(folder: Path) -> Path:
    folder.mkdir()
    onnx.save(linear(), folder / "net.onnx", save_as_external_data=True, location="net.data",
              size_threshold=100)  # fmt: skip
    return folder / "net.onnx"


def pointing_to(path: Path, location: str) -> None:
    model = onnx.load(path, load_external_data=False)
    (entry,) = (e for e in model.graph.initializer[0].external_data if e.key == "location")
    entry.value = location
    path.write_bytes(model.SerializeToString())


def test_external_weights_are_read_from_the_files_own_folder_only(tmp_path: Path) -> None:
    path = with_external_data(tmp_path / "model")
    x = torch.randn(2, 4)
    torch.testing.assert_close(load_onnx(path)(x), module_of(linear())(x))
    data = path.parent / "net.data"
    outside = tmp_path / "outside.data"
    outside.write_bytes(data.read_bytes())
    for location in ("../outside.data", str(outside)):
        pointing_to(path, location)
        refused(path, "external weights cannot be read")
    pointing_to(path, "link.data")
    os.symlink(outside, path.parent / "link.data")
    refused(path, "external weights cannot be read")
    pointing_to(path, "net.data")
    data.write_bytes(data.read_bytes()[:100])
    refused(path, "external weights cannot be read")
    data.unlink()
    refused(path, "external weights cannot be read")


def one(operator: str, inputs: int = 1, domain: str = "", **attributes: object) -> onnx.ModelProto:
    names = ["x", "z", "v", "u"][:inputs]
    made = node(operator, names, ["y"], name="the/node", domain=domain, **attributes)
    model = graph_of([made], {name: ["n", 4] for name in names}, ["y"])
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


REFUSED = [
    (one("Convv", 2), "'the/node' .Convv.*'ai.onnx'.*did you mean 'Conv'"),
    (one("Magic", domain="acme"), "'the/node' .Magic.*'acme'.*cut that part off"),
    (one("NonZero"), "'the/node' .NonZero.*depends on data"),
    (one("Einsum"), "'the/node' .Einsum. is no valid ONNX"),
    (one("DequantizeLinear", 2), "quantised model; give the float model"),
    (one("QLinearConv", 8), "quantised model; give the float model"),
    (one("RandomNormalLike"), "draws random numbers"),
]


@pytest.mark.parametrize(("model", "words"), REFUSED)
def test_operators_that_cannot_be_pruned_are_named(model: onnx.ModelProto, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        module_of(model)
    assert "\n" not in str(caught.value)


def test_a_value_that_nothing_makes_is_named() -> None:
    with pytest.raises(InputError, match="reads 'ghost'"):
        module_of(graph_of([node("Add", ["x", "ghost"], ["y"])], {"x": [4]}, ["y"]))
    with pytest.raises(InputError, match="output 'ghost'"):
        module_of(graph_of([node("Relu", ["x"], ["y"])], {"x": [4]}, ["ghost"]))


@pytest.mark.parametrize(("opset", "words"), [(5, "oldest that is read is 7"), (99, "upgrade")])
def test_operators_of_another_time(opset: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        module_of(graph_of([node("Relu", ["x"], ["y"])], {"x": [4]}, ["y"], opset=opset))


def test_operands_that_do_not_fit_name_their_node() -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"], name="product")]
    fitting = graph_of(nodes, {"x": [2, 4]}, ["y"], {"w": numbers(5, 3)})
    with pytest.raises(InputError, match="'product' .Linear. cannot be computed"):
        capture(module_of(fitting), (torch.ones(2, 4),))
    constant = graph_of(nodes, {"z": [1]}, ["y"], {"x": numbers(2, 4), "w": numbers(5, 3)})
    with pytest.raises(InputError, match="'product' .MatMul. cannot be computed"):
        module_of(constant)


def test_a_shape_that_data_decides_names_its_node() -> None:
    nodes = [
        node("Cast", ["x"], ["shape"], to=7),
        node("Reshape", ["x", "shape"], ["y"], name="fold"),
    ]
    model = module_of(graph_of(nodes, {"x": [4]}, ["y"]))
    with pytest.raises(InputError, match="'fold' .Reshape. computes its shape from data"):
        capture(model, (torch.ones(4),))


def test_a_branch_that_data_decides_names_its_node() -> None:
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    branch = helper.make_graph([node("Relu", ["x"], ["r"])], "b", [], [result])
    nodes = [
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Cast", ["s"], ["c"], to=9),
        node("If", ["c"], ["y"], name="fork", then_branch=branch, else_branch=branch),
    ]
    model = module_of(graph_of(nodes, {"x": [4]}, ["y"]))
    with pytest.raises(InputError, match="'fork' .If. chooses by data"):
        capture(model, (torch.ones(4),))


def test_inputs_that_the_file_does_not_take_are_told() -> None:
    model = module_of(linear())
    for inputs, words in (
        ((torch.ones(2, 5),), r"input x float32 \[n, 4\] was given float32 \[2, 5\]"),
        ((torch.ones(2, 4, dtype=torch.int64),), "was given int64"),
        ((torch.ones(2, 4), torch.ones(1)), "2 inputs for a model with 1: x"),
    ):
        with pytest.raises(InputError, match=words):
            capture(model, inputs)
    with pytest.raises(EdgepruneError, match="leaves sizes open.*batch=1"):
        model.example_inputs()


def test_half_precision_is_read_as_float32_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = numbers(4, 6).astype(np.float16)
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    made = graph_of(nodes, {"x": [2, 4]}, ["y"], {"w": half}, dtype=TensorProto.FLOAT16)
    onnx.save(made, tmp_path / "half.onnx")
    model = load_onnx(tmp_path / "half.onnx")
    assert "float16 numbers are read as float32" in capsys.readouterr().err
    (weight,) = model.parameters()
    assert weight.dtype == torch.float32
    x = torch.randn(2, 4)
    torch.testing.assert_close(model(x)[0], x @ torch.from_numpy(half).float())


def test_weights_of_types_that_cannot_be_pruned() -> None:
    constants = {"w": np.zeros((4, 2), np.complex64)}
    with pytest.raises(InputError, match="'w' is COMPLEX64.*float32"):
        module_of(graph_of([node("MatMul", ["x", "w"], ["y"])], {"x": [2, 4]}, ["y"], constants))

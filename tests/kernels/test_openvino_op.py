"""The operator inside OpenVINO equals the masked torch layer, wherever and however it runs."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import openvino as ov
import pytest
import torch
from kernel_reference import block_sparse
from onnx import TensorProto, helper

import edgeprune
from edgeprune.kernels import BLOCKS, SparseLinear, pack
from edgeprune.kernels.onnx_node import DOMAIN, DOMAIN_VERSION, sparse_node

INPUTS, HIDDEN, OUTPUTS = 40, 96, 32
KINDS = [
    pytest.param(precision, block, id=f"{precision}-{block[0]}x{block[1]}")
    for precision, blocks in BLOCKS.items()
    for block in blocks
]
TOLERANCE = {"f32": 1e-5, "bf16": 2e-2, "int8": 4e-2}


@pytest.fixture
def core() -> ov.Core:
    made = ov.Core()
    made.add_extension(str(edgeprune.openvino_extension()))
    return made


def masked_network(block: tuple[int, int]) -> torch.nn.Sequential:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(INPUTS, HIDDEN), torch.nn.GELU(), torch.nn.Linear(HIDDEN, OUTPUTS)
    )
    with torch.no_grad():
        for layer in (network[0], network[2]):
            mask = block_sparse(rng, layer.out_features, layer.in_features, block, 0.8) != 0
            layer.weight *= torch.from_numpy(mask)
    return network


def as_onnx(
    network: torch.nn.Sequential,
    block: tuple[int, int],
    precision: Any,
    path: Path,
    rows: Any,
    together: bool = False,
) -> Path:
    first, second = (
        SparseLinear(pack(layer.weight, block, precision), layer.bias.detach().numpy(), activation)
        for layer, activation in ((network[0], "gelu"), (network[2], "none"))
    )
    one, constants = sparse_node([first], "first", "x", "hidden")
    two, more = sparse_node([second], "second", "hidden", "y")
    nodes = [one, two]
    if together:
        node, constants = sparse_node([first, second], "both", "x", "y")
        nodes, more = [node], []
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*rows, INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*rows, OUTPUTS])],
        [*constants, *more],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def batch(*rows: int) -> npt.NDArray[np.float32]:
    values = np.random.default_rng(sum(rows)).standard_normal((*rows, INPUTS))
    return values.astype(np.float32)


def expected(network: torch.nn.Sequential, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    with torch.no_grad():
        return np.asarray(network(torch.from_numpy(x)).numpy())


@pytest.mark.parametrize(("precision", "block"), KINDS)
@pytest.mark.parametrize("together", [False, True])
def test_it_equals_the_masked_layer(
    core: ov.Core, precision: str, block: tuple[int, int], together: bool, tmp_path: Path
) -> None:
    network = masked_network(block)
    path = as_onnx(network, block, precision, tmp_path / "n.onnx", [2, 9], together)
    compiled = core.compile_model(path)
    x = batch(2, 9)
    y = expected(network, x)
    np.testing.assert_allclose(compiled(x)[0], y, atol=TOLERANCE[precision] * np.abs(y).max())


@pytest.mark.parametrize("block", [(4, 1), (16, 1)])
def test_any_number_of_rows(core: ov.Core, block: tuple[int, int], tmp_path: Path) -> None:
    network = masked_network(block)
    compiled = core.compile_model(as_onnx(network, block, "f32", tmp_path / "n.onnx", ["a", "b"]))
    for rows in ((1, 1), (3, 50), (1, 7), (2, 0), (1, 130)):
        found = compiled(batch(*rows))[0]
        np.testing.assert_allclose(found, expected(network, batch(*rows)), atol=1e-5)


@pytest.fixture
def ir(core: ov.Core, tmp_path: Path) -> Path:
    model = core.read_model(
        as_onnx(masked_network((4, 1)), (4, 1), "f32", tmp_path / "n.onnx", [9])
    )
    ov.save_model(model, tmp_path / "n.xml", compress_to_fp16=False)
    return tmp_path / "n.xml"


def test_the_ir_tells_what_a_layer_is(ir: Path) -> None:
    text = ir.read_text()
    assert 'type="SparseLinear" version="edgeprune"' in text
    for attribute in ('features="96"', 'activation="gelu"', 'block="4x1"', 'precision="f32"'):
        assert attribute in text
    assert 'sparsity="0.8' in text or 'sparsity="0.7' in text


def test_a_saved_ir_runs_in_another_core(ir: Path) -> None:
    other = ov.Core()
    other.add_extension(str(edgeprune.openvino_extension()))
    found = other.compile_model(ir)(batch(9))[0]
    np.testing.assert_allclose(found, expected(masked_network((4, 1)), batch(9)), atol=1e-5)


def test_a_cached_model_gives_the_same_bits(core: ov.Core, ir: Path, tmp_path: Path) -> None:
    settings = {"CACHE_DIR": str(tmp_path / "cache")}
    first = core.compile_model(ir, "CPU", settings)(batch(9))[0]
    assert list((tmp_path / "cache").iterdir())
    again = core.compile_model(ir, "CPU", settings)
    assert again.get_property("LOADED_FROM_CACHE")
    np.testing.assert_array_equal(again(batch(9))[0], first)


def test_threads_give_the_same_bits(core: ov.Core, tmp_path: Path) -> None:
    path = as_onnx(masked_network((4, 1)), (4, 1), "f32", tmp_path / "n.onnx", [300])
    found = [
        core.compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": threads})(batch(300))[0]
        for threads in (1, 2)
    ]
    np.testing.assert_array_equal(*found)


def test_several_streams_at_once(core: ov.Core, tmp_path: Path) -> None:
    network = masked_network((4, 1))
    path = as_onnx(network, (4, 1), "f32", tmp_path / "n.onnx", ["m"])
    compiled = core.compile_model(path, "CPU", {"NUM_STREAMS": 4, "INFERENCE_NUM_THREADS": 4})
    found: dict[int, npt.NDArray[Any]] = {}

    def keep(request: ov.InferRequest, rows: int) -> None:
        found[rows] = copy.deepcopy(request.get_output_tensor().data)

    queue = ov.AsyncInferQueue(compiled, 4)
    queue.set_callback(keep)
    for rows in range(1, 60):
        queue.start_async({0: batch(rows)}, rows)
    queue.wait_all()
    for rows in range(1, 60):
        np.testing.assert_allclose(found[rows], expected(network, batch(rows)), atol=1e-5)


def test_without_the_extension_openvino_names_the_operator(ir: Path) -> None:
    with pytest.raises(RuntimeError, match="SparseLinear"):
        ov.Core().read_model(ir)


def set_attribute(node: onnx.NodeProto, name: str, **value: Any) -> None:
    attribute = next(found for found in node.attribute if found.name == name)
    for field, content in value.items():
        if isinstance(content, list):
            getattr(attribute, field)[:] = content
        else:
            setattr(attribute, field, content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda node, data: data.__setitem__(-300, data[-300] ^ 1), "checksum"),
        (lambda node, data: set_attribute(node, "features", i=33), "has 96 outputs, not 33"),
        (
            lambda node, data: set_attribute(node, "activation", strings=[b"tanh"]),
            "activation 'tanh'",
        ),
    ],
)
def test_what_was_altered_is_refused_when_it_is_read(
    core: ov.Core, spoil: Callable[..., None], message: str, tmp_path: Path
) -> None:
    path = as_onnx(masked_network((4, 1)), (4, 1), "f32", tmp_path / "n.onnx", [9])
    model = onnx.load(path)
    data = bytearray(model.graph.initializer[0].raw_data)
    spoil(model.graph.node[0], data)
    model.graph.initializer[0].raw_data = bytes(data)
    onnx.save(model, path)
    with pytest.raises(RuntimeError, match=message):
        core.read_model(path)


def test_a_wrong_width_is_refused(core: ov.Core, tmp_path: Path) -> None:
    path = as_onnx(masked_network((4, 1)), (4, 1), "f32", tmp_path / "n.onnx", [9])
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = INPUTS + 1
    onnx.save(model, path)
    with pytest.raises(RuntimeError, match="x has 41 columns, the packed weight 40 inputs"):
        core.read_model(path)


def test_a_weight_that_is_no_constant_is_refused(core: ov.Core, tmp_path: Path) -> None:
    """Nothing would check it before it is read."""
    path = as_onnx(masked_network((4, 1)), (4, 1), "f32", tmp_path / "n.onnx", [9])
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    model.graph.input.append(
        helper.make_tensor_value_info(weight.name, TensorProto.UINT8, list(weight.dims))
    )
    del model.graph.initializer[0]
    onnx.save(model, path)
    with pytest.raises(RuntimeError, match="packed weights as constants"):
        core.read_model(path)


def test_layers_that_do_not_fit_one_another_are_refused(core: ov.Core, tmp_path: Path) -> None:
    network = masked_network((4, 1))
    path = as_onnx(network, (4, 1), "f32", tmp_path / "n.onnx", [9], together=True)
    model = onnx.load(path)
    inputs = model.graph.node[0].input
    inputs[3], inputs[4] = inputs[1], inputs[2]
    onnx.save(model, path)
    with pytest.raises(RuntimeError, match="x has 96 columns, the packed weight 40 inputs"):
        core.read_model(path)

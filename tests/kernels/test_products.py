"""Every kernel equals NumPy: each instruction set, precision and block; awkward shapes."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_reference import block_sparse, product

from edgeprune.errors import InputError
from edgeprune.kernels import BLOCKS, instruction_sets, pack

Block = tuple[int, int]
CASES = [
    pytest.param(isa, precision, block, id=f"{isa}-{precision}-{block[0]}x{block[1]}")
    for isa in instruction_sets()
    for precision, blocks in BLOCKS.items()
    for block in blocks
]
# A double carries the reference; a float sums at most 700 products of about one.
CLOSE = 2e-5


@pytest.mark.parametrize(("isa", "precision", "block"), CASES)
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(0, 150),
    groups=st.integers(1, 12),
    inputs=st.integers(1, 700),
    sparsity=st.sampled_from([0.0, 0.5, 0.9, 0.97, 1.0]),
    parts=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_a_product_equals_numpy(
    isa: str,
    precision: str,
    block: Block,
    rows: int,
    groups: int,
    inputs: int,
    sparsity: float,
    parts: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    weight = block_sparse(rng, groups * block[0], inputs, block, sparsity)
    x = rng.standard_normal((rows, inputs)).astype(np.float32)
    bias = rng.standard_normal(len(weight)).astype(np.float32)
    packed = pack(weight, block, precision)
    found = packed.multiply(x, bias, isa=isa, parts=parts)
    expected = product(x, weight, precision) + bias
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=CLOSE, atol=CLOSE * math.sqrt(inputs) * 4)


@pytest.mark.parametrize(
    ("isa", "block"), [(i, b) for i in instruction_sets() for b in BLOCKS["int8"]]
)
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 100),
    groups=st.integers(1, 8),
    inputs=st.integers(1, 500),
    zero_point=st.integers(0, 255),
    sparsity=st.sampled_from([0.0, 0.8, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_int8_is_exact(
    isa: str,
    block: Block,
    rows: int,
    groups: int,
    inputs: int,
    zero_point: int,
    sparsity: float,
    seed: int,
) -> None:
    """Whole numbers in, scales of one: every output is the integer that it has to be."""
    rng = np.random.default_rng(seed)
    alive = block_sparse(rng, groups * block[0], inputs, block, sparsity) != 0
    weight = rng.integers(-127, 128, alive.shape) * alive
    x = rng.integers(-zero_point, 256 - zero_point, (rows, inputs))
    bias = rng.integers(-1000, 1000, len(weight))
    packed = pack(weight.astype(np.float32), block, "int8", scale=np.ones(len(weight)))
    found = packed.multiply(
        x.astype(np.float32), bias.astype(np.float32), scale=1.0, zero_point=zero_point, isa=isa
    )
    np.testing.assert_array_equal(found, x @ weight.T + bias)


@pytest.mark.parametrize("isa", instruction_sets())
def test_extreme_bytes_do_not_saturate(isa: str) -> None:
    x = np.full((5, 64), 255, np.float32)
    for sign in (-1, 1):
        weight = np.full((16, 64), sign * 127, np.float32)
        for block in BLOCKS["int8"]:
            packed = pack(weight, block, "int8", scale=np.ones(16))
            found = packed.multiply(x, scale=1.0, zero_point=0, isa=isa)
            np.testing.assert_array_equal(found, np.full((5, 16), sign * 127 * 255 * 64))


@pytest.mark.parametrize(("isa", "precision", "block"), CASES)
def test_parts_give_the_same_bits(isa: str, precision: str, block: Block) -> None:
    rng = np.random.default_rng(3)
    for rows in (1, 3, 40, 127, 130, 190, 400):  # of 127, 190, 400 each of 2, 3, 7 parts has rows
        weight = block_sparse(rng, 96, 200, block, 0.7)
        weight[:32] = 0  # unbalanced on purpose
        x = rng.standard_normal((rows, 200)).astype(np.float32)
        packed = pack(weight, block, precision)
        whole = packed.multiply(x, activation="gelu", isa=isa)
        for parts in (2, 3, 7, 64):
            cut = packed.multiply(x, activation="gelu", isa=isa, parts=parts)
            np.testing.assert_array_equal(cut, whole)


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
@pytest.mark.parametrize("block", [(4, 1), (16, 1)])
def test_activations_equal_torch(isa: str, activation: str, block: Block) -> None:
    """Over all that a float can be, through a weight of one."""
    values = np.concatenate(
        [np.linspace(-20, 20, 4001), [-1e38, -1e30, -90, -1e-20, 0, 1e-20, 90, 1e30]]
    )
    weight = np.zeros((block[0], 1), np.float32)
    weight[0] = 1
    x = values.astype(np.float32)[:, None]
    found = pack(weight, block).multiply(x, activation=activation, isa=isa)[:, 0]
    functions = {
        "relu": torch.nn.functional.relu,
        "gelu": torch.nn.functional.gelu,
        "silu": torch.nn.functional.silu,
    }
    expected = functions[activation](torch.from_numpy(x[:, 0]).double()).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(("isa", "precision", "block"), CASES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [1, 20, 70])
def test_what_is_not_finite_spoils_its_row_and_no_other(
    isa: str, precision: str, block: Block, bad: float, rows: int
) -> None:
    """A dense product gives NaN there, too: infinity times a weight of zero is NaN."""
    rng = np.random.default_rng(1)
    weight = block_sparse(rng, 32, 40, block, 0.8)
    weight[:, 7] = 0  # also where no weight reads it
    x = rng.standard_normal((rows, 40)).astype(np.float32)
    clean = pack(weight, block, precision).multiply(x, activation="relu", isa=isa)
    x[rows // 2, 7] = bad
    found = pack(weight, block, precision).multiply(x, activation="relu", isa=isa)
    assert np.isnan(found[rows // 2]).all()
    others = np.arange(rows) != rows // 2
    np.testing.assert_array_equal(found[others], clean[others])


def test_torch_weights_and_leading_dimensions() -> None:
    layer = torch.nn.Linear(24, 12)
    x = torch.randn(2, 5, 24)
    found = pack(layer.weight).multiply(x, layer.bias.detach())
    np.testing.assert_allclose(found, layer(x).detach().numpy(), atol=1e-5)


def test_a_given_output_is_written_to() -> None:
    packed = pack(np.eye(4, dtype=np.float32))
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    out = np.empty((2, 4), np.float32)
    assert packed.multiply(x, out=out) is out
    np.testing.assert_array_equal(out, x)
    with pytest.raises(InputError, match="out has to be"):
        packed.multiply(x, out=np.empty((2, 5), np.float32))
    out.flags.writeable = False
    with pytest.raises(InputError, match="out has to be"):
        packed.multiply(x, out=out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.zeros((2, 5), np.float32)}, "takes 4 columns"),
        ({"bias": np.zeros(5, np.float32)}, "bias has shape"),
        ({"activation": "tanh"}, "use one of none, relu, gelu, silu"),
        ({"isa": "avx9"}, "lacks the instruction set"),
        ({"scale": 0.0}, "has to be above 0"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    packed = pack(np.eye(4, dtype=np.float32))
    with pytest.raises(InputError, match=message):
        packed.multiply(**{"x": np.zeros((2, 4), np.float32), **arguments})

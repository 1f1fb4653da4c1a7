"""Several layers in a row compute what they compute one after the other."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_reference import block_sparse

from edgeprune.errors import InputError
from edgeprune.kernels import BLOCKS, SparseLinear, instruction_sets, multiply_layers, pack

KINDS = [(precision, block) for precision, blocks in BLOCKS.items() for block in blocks]


def layer(
    rng: np.random.Generator, kind: Any, groups: int, inputs: int, **settings: Any
) -> SparseLinear:
    precision, block = kind
    weight = block_sparse(rng, groups * block[0], inputs, block, 0.6) / np.sqrt(inputs)
    bias = rng.standard_normal(len(weight)).astype(np.float32)
    return SparseLinear(pack(weight, block, precision), bias, **settings)


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("first", KINDS, ids=str)
@pytest.mark.parametrize("second", KINDS, ids=str)
@settings(max_examples=4, deadline=None)
@given(
    rows=st.integers(0, 150),
    groups=st.integers(1, 5),
    inputs=st.integers(1, 90),
    activation=st.sampled_from(["none", "relu", "gelu", "silu"]),
    static=st.booleans(),
    parts=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_a_row_of_layers_equals_one_after_the_other(
    isa: str,
    first: Any,
    second: Any,
    rows: int,
    groups: int,
    inputs: int,
    activation: str,
    static: bool,
    parts: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    scaled = {"scale": 0.05, "zero_point": 77} if static else {}
    one = layer(rng, first, groups, inputs, activation=activation)
    two = layer(rng, second, 3, one.weight.outputs, **scaled)
    x = rng.standard_normal((rows, inputs)).astype(np.float32)
    between = multiply_layers([one], x, isa=isa)
    expected = multiply_layers([two], between, isa=isa)
    found = multiply_layers([one, two], x, isa=isa, parts=parts)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("first", KINDS, ids=str)
@pytest.mark.parametrize("second", KINDS, ids=str)
def test_a_row_of_layers_gives_the_same_bits_where_parts_have_rows_of_their_own(
    isa: str, first: Any, second: Any
) -> None:
    rng = np.random.default_rng(0)
    one = layer(rng, first, 5, 40, activation="gelu")
    two = layer(rng, second, 3, one.weight.outputs)
    for rows, parts in ((128, 2), (250, 4)):
        x = rng.standard_normal((rows, 40)).astype(np.float32)
        found = multiply_layers([one, two], x, isa=isa, parts=parts)
        np.testing.assert_array_equal(found, multiply_layers([one, two], x, isa=isa))


def test_three_layers_and_what_is_not_finite() -> None:
    rng = np.random.default_rng(0)
    layers = [
        layer(rng, ("f32", (4, 1)), 20, 30, activation="gelu"),
        layer(rng, ("int8", (4, 1)), 20, 80, activation="relu"),
        layer(rng, ("bf16", (4, 1)), 5, 80),
    ]
    x = rng.standard_normal((70, 30)).astype(np.float32)
    expected = x
    for one in layers:
        expected = multiply_layers([one], expected)
    np.testing.assert_array_equal(multiply_layers(layers, x), expected)
    x[3, 4] = np.inf
    spoilt = multiply_layers(layers, x)
    assert np.isnan(spoilt[3]).all()
    np.testing.assert_array_equal(np.delete(spoilt, 3, 0), np.delete(expected, 3, 0))


@pytest.mark.parametrize("second", KINDS, ids=str)
def test_an_infinity_made_between_two_layers_spoils_its_row(second: Any) -> None:
    """Dense gives NaN, whether a weight reads the infinity or not."""
    weight = np.zeros((16, 4), np.float32)
    weight[3] = 1e30
    one = SparseLinear(pack(weight), np.zeros(16, np.float32))
    kept = np.zeros((32, 16), np.float32)
    kept[:, 8] = 1
    two = SparseLinear(pack(kept, second[1], second[0]), np.zeros(32, np.float32))
    x = np.zeros((20, 4), np.float32)
    x[5] = 1e10
    found = multiply_layers([one, two], x)
    assert np.isnan(found[5]).all()
    assert np.isfinite(np.delete(found, 5, 0)).all()


def test_layers_that_do_not_fit_are_refused() -> None:
    rng = np.random.default_rng(0)
    one, two = (layer(rng, ("f32", (4, 1)), 5, 30) for _ in range(2))
    with pytest.raises(InputError, match="given 20 columns takes 30 columns"):
        multiply_layers([one, two], np.zeros((2, 30), np.float32))

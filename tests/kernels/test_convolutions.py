"""A sparse convolution equals torch's with the masked weight."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_reference import block_sparse, rounded_to_bfloat16

from edgeprune.errors import InputError
from edgeprune.kernels import SparseConvolution, convolve, instruction_sets, pack

Array = Any
BLOCKS = [(4, 1), (1, 1)]


def reference(x: Array, weight: Array, layer: SparseConvolution) -> Array:
    """In double precision, without bias and activation."""
    shaped = weight.reshape(len(weight), layer.channels, *layer.kernel)
    made = torch.nn.functional.conv2d(
        torch.from_numpy(x.astype(np.float64)),
        torch.from_numpy(shaped.astype(np.float64)),
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
    )
    return made.numpy()


def pairs(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


@st.composite
def geometries(draw: st.DrawFn) -> dict[str, Any]:
    """Window and image, of which at least one position is left."""
    kernel, dilation, padding = draw(pairs(1, 4)), draw(pairs(1, 3)), draw(pairs(0, 3))
    reach = [dilation[i] * (kernel[i] - 1) + 1 for i in range(2)]
    size = [max(1, reach[i] - 2 * padding[i]) + draw(st.integers(0, 20)) for i in range(2)]
    return {
        "window": {
            "kernel": kernel,
            "stride": draw(pairs(1, 4)),
            "padding": padding,
            "dilation": dilation,
        },
        "size": tuple(size),
        "channels": draw(st.integers(1, 6)),
        "images": draw(st.integers(0, 3)),
    }


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("block", BLOCKS, ids=str)
@settings(max_examples=15, deadline=None)
@given(geometry=geometries(), groups=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_it_equals_torch(
    isa: str, precision: Any, block: Any, geometry: dict[str, Any], groups: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    window, channels = geometry["window"], geometry["channels"]
    inputs = channels * window["kernel"][0] * window["kernel"][1]
    weight = block_sparse(rng, groups * block[0], inputs, block, 0.7)
    bias = rng.standard_normal(len(weight)).astype(np.float32)
    x = rng.standard_normal((geometry["images"], channels, *geometry["size"])).astype(np.float32)
    layer = SparseConvolution(pack(weight, block, precision), bias, **window)
    found = convolve(layer, x, isa=isa)
    if precision == "bf16":
        x, weight = rounded_to_bfloat16(x), rounded_to_bfloat16(weight)
    expected = reference(x, weight, layer) + bias[:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("block", BLOCKS, ids=str)
@settings(max_examples=15, deadline=None)
@given(
    geometry=geometries(),
    groups=st.integers(1, 6),
    zero_point=st.integers(0, 255),
    seed=st.integers(0, 2**31),
)
def test_int8_with_one_scale_is_exact(
    isa: str, block: Any, geometry: dict[str, Any], groups: int, zero_point: int, seed: int
) -> None:
    """Steps of powers of two, so that floats hold every sum exactly."""
    rng = np.random.default_rng(seed)
    window, channels = geometry["window"], geometry["channels"]
    inputs = channels * window["kernel"][0] * window["kernel"][1]
    mask = block_sparse(rng, groups * block[0], inputs, block, 0.7) != 0
    weight = (rng.integers(-127, 128, mask.shape) * mask).astype(np.float32)
    shape = (geometry["images"], channels, *geometry["size"])
    x = rng.integers(-400, 400, shape).astype(np.float32) / 4
    layer = SparseConvolution(
        pack(weight, block, "int8", scale=np.ones(len(weight))),
        np.zeros(len(weight), np.float32),
        scale=0.5,
        zero_point=zero_point,
        **window,
    )
    bytes_of = np.clip(np.rint(x / 0.5) + zero_point, 0, 255) - zero_point
    expected = reference(bytes_of, weight, layer) * 0.5
    np.testing.assert_array_equal(convolve(layer, x, isa=isa), expected)


@pytest.mark.parametrize("isa", instruction_sets())
def test_int8_finds_a_scale_for_each_position(isa: str) -> None:
    """A loud corner leaves the rest of the image its precision."""
    rng = np.random.default_rng(0)
    weight = block_sparse(rng, 8, 5 * 9, (4, 1), 0.5)
    layer = SparseConvolution(
        pack(weight, (4, 1), "int8"), np.zeros(8, np.float32), (3, 3), padding=(1, 1)
    )
    x = rng.standard_normal((2, 5, 17, 13)).astype(np.float32)
    loud = x.copy()
    loud[0, 0, 0, 0] = 1e4
    found, expected = convolve(layer, x, isa=isa), reference(x, weight, layer)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    spoilt = convolve(layer, loud, isa=isa)
    np.testing.assert_array_equal(spoilt[0, :, 2:], found[0, :, 2:])
    np.testing.assert_array_equal(spoilt[1], found[1])


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
@pytest.mark.parametrize("size", [(3, 3), (5, 40), (14, 14)])
@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "silu"])
def test_threads_give_the_same_bits(
    isa: str, precision: Any, size: tuple[int, int], activation: str
) -> None:
    rng = np.random.default_rng(0)
    weight = block_sparse(rng, 28, 6 * 9, (4, 1), 0.6)
    bias = rng.standard_normal(28).astype(np.float32)
    packed = pack(weight, (4, 1), precision)
    layer = SparseConvolution(packed, bias, (3, 3), (1, 2), (1, 1), (1, 1), activation)
    x = rng.standard_normal((2, 6, *size)).astype(np.float32)
    whole = convolve(layer, x, isa=isa)
    functions = {
        "none": lambda values: values,
        "relu": torch.nn.functional.relu,
        "gelu": torch.nn.functional.gelu,
        "silu": torch.nn.functional.silu,
    }
    expected = functions[activation](
        torch.from_numpy(reference(x, weight, layer) + bias[:, None, None])
    )
    tolerance = {"f32": 1e-5, "bf16": 0.1, "int8": 0.2}[precision]
    np.testing.assert_allclose(whole, expected, atol=tolerance)
    for parts in (2, 3, 7):
        np.testing.assert_array_equal(convolve(layer, x, isa=isa, parts=parts), whole)


@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_spoils_what_reads_it(precision: Any, bad: float) -> None:
    rng = np.random.default_rng(0)
    weight = block_sparse(rng, 8, 3 * 9, (4, 1), 0.5)
    weight[:, 4] = 0  # the centre of the first channel
    layer = SparseConvolution(pack(weight, (4, 1), precision), np.zeros(8, np.float32), (3, 3))
    x = rng.standard_normal((1, 3, 12, 12)).astype(np.float32)
    whole = convolve(layer, x)
    x[0, 0, 6, 7] = bad
    spoilt = convolve(layer, x)
    reads = np.zeros((10, 10), bool)
    reads[4:7, 5:8] = True
    assert np.isnan(spoilt[0, :, reads]).all()
    np.testing.assert_array_equal(spoilt[0, :, ~reads], whole[0, :, ~reads])


@pytest.mark.parametrize(
    ("settings_of", "message"),
    [
        ({"kernel": (2, 2)}, "54 inputs, no multiple of a kernel of 2x2"),
        ({"kernel": (0, 3)}, "kernel is \\(0, 3\\)"),
        ({"kernel": (3, 3), "stride": (0, 1)}, "stride is"),
        ({"kernel": (3, 3), "padding": (-1, 1)}, "padding is"),
        ({"kernel": (3, 3), "dilation": (1, 1 << 20)}, "dilation is"),
        ({"kernel": (3, 3), "activation": "tanh"}, "use one of none"),
        ({"kernel": (3, 3), "bias": np.zeros(7, np.float32)}, "bias has shape"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings_of: dict[str, Any], message: str) -> None:
    given_too = {"bias": np.zeros(8, np.float32), **settings_of}
    with pytest.raises(InputError, match=message):
        SparseConvolution(pack(np.ones((8, 54), np.float32)), **given_too)


def test_wide_blocks_and_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="no kernel for blocks of 16x1"):
        SparseConvolution(
            pack(np.ones((16, 9), np.float32), (16, 1)), np.zeros(16, np.float32), (3, 3)
        )
    layer = SparseConvolution(
        pack(np.ones((8, 54), np.float32)), np.zeros(8, np.float32), (3, 3), dilation=(2, 1)
    )
    with pytest.raises(InputError, match="takes \\(images, 6, rows, columns\\)"):
        convolve(layer, np.zeros((1, 5, 9, 9), np.float32))
    with pytest.raises(InputError, match="larger than a padded image of 4x9"):
        convolve(layer, np.zeros((1, 6, 4, 9), np.float32))

"""Layers computed in float as their formats compute: the kernels' values, straight gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from edgeprune.errors import InputError
from edgeprune.formats import DENSE, DENSE_INT8, Formats, parse_format
from edgeprune.graph.capture import capture
from edgeprune.graph.simulation import (
    fake_quantise_rows,
    fake_quantise_tensor,
    fake_quantise_weight,
    round_to_bfloat16,
    simulate,
)
from edgeprune.kernels import pack
from edgeprune.kernels.packing import quantise

ROUNDINGS = (fake_quantise_weight, fake_quantise_rows, fake_quantise_tensor, round_to_bfloat16)
SPARSE_INT8 = parse_format("int8-4x1-50")
# Below these the inverse of a scale overflows; above, sums do.
exponents = st.integers(-30, 30)


class Attention(nn.Module):
    """Three layers of one input, then one of another, then a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.out = nn.Linear(8, 12)
        self.mix = nn.Conv1d(12, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.query(x) * torch.tanh(self.key(x)) + self.value(x)
        return self.mix(self.out(y).transpose(1, 2))


def captured() -> tuple[fx.GraphModule, Tensor]:
    torch.manual_seed(0)
    return capture(Attention().eval(), (torch.randn(1, 5, 8),)).module, torch.randn(3, 5, 8)


@settings(max_examples=60, deadline=None)
@given(
    outputs=st.integers(1, 9), inputs=st.integers(1, 40), exponent=exponents, seed=st.integers(0)
)
def test_a_weight_is_rounded_as_it_is_packed(
    outputs: int, inputs: int, exponent: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((outputs, inputs)).astype(np.float32) * np.float32(10.0**exponent)
    weight *= rng.random((outputs, 1)) > 0.2
    # Values in the middle between two steps: 127, 0.5, 1.5, ...
    weight[0] = np.arange(inputs) - 0.5
    weight[0, 0] = 127
    found = fake_quantise_weight(torch.from_numpy(weight)).numpy()
    np.testing.assert_array_equal(found, quantise(weight, "int8").dense())


def test_a_convolutions_weight_is_rounded_by_output_in_any_layout() -> None:
    weight = torch.randn(6, 5, 3, 3)
    flat = fake_quantise_weight(weight.flatten(1)).view_as(weight)
    last = weight.contiguous(memory_format=torch.channels_last)
    assert torch.equal(fake_quantise_weight(weight), flat)
    assert torch.equal(fake_quantise_weight(last), flat)
    assert fake_quantise_weight(last).is_contiguous(memory_format=torch.channels_last)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 40), inputs=st.integers(1, 70), exponent=exponents, seed=st.integers(0))
def test_rows_are_rounded_as_the_kernels_do(
    rows: int, inputs: int, exponent: int, seed: int
) -> None:
    """The identity as weight hands out what the kernel reads: 127 steps of 1/127 in each."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, inputs)).astype(np.float32) * np.float32(10.0**exponent)
    x *= rng.random((rows, 1)) > 0.2
    found = fake_quantise_rows(torch.from_numpy(x)).numpy()
    kernel = pack(np.eye(inputs, dtype=np.float32), (1, 1), "int8").multiply(x)
    np.testing.assert_allclose(found, kernel, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    block=st.sampled_from([(1, 1), (4, 1), (16, 4)]),
    rows=st.integers(1, 30),
    seed=st.integers(0, 2**31),
)
def test_a_simulated_product_is_the_kernels(block: tuple[int, int], rows: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(32, 48, generator=generator)
    x, bias = torch.randn(2, rows, 48, generator=generator), torch.randn(32, generator=generator)
    found = F.linear(fake_quantise_rows(x), fake_quantise_weight(weight), bias)
    kernel = pack(weight, block, "int8").multiply(x, bias)
    np.testing.assert_allclose(found.numpy(), kernel, rtol=1e-5, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(low=st.floats(-50, 50), width=st.floats(0, 50), seed=st.integers(0))
def test_a_tensor_has_256_steps_of_which_one_is_zero(low: float, width: float, seed: int) -> None:
    x = low + width * torch.rand(7, 9, generator=torch.Generator().manual_seed(seed % 2**60))
    found = fake_quantise_tensor(x)
    step = float(x.max().clamp(min=0) - x.min().clamp(max=0)) / 255
    assert float((found - x).abs().max()) <= 1.001 * step + 1e-6
    if step > 1e-3:
        whole = found / step
        assert torch.allclose(whole, whole.round(), atol=2e-3)
        assert torch.equal(fake_quantise_tensor(torch.cat([x, torch.zeros(1, 9)]))[-1], 0 * x[0])


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_pass_as_if_nothing_was_rounded(rounding, dtype: torch.dtype) -> None:
    x = (10 * torch.randn(6, 11)).to(dtype).requires_grad_()
    rounded = rounding(x)
    assert rounded.dtype == dtype and rounded.shape == x.shape
    upstream = torch.randn(6, 11).to(dtype)
    rounded.backward(upstream)
    assert torch.equal(x.grad, upstream)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden(rounding, bad: float) -> None:
    x = torch.ones(3, 4)
    x[1, 2] = bad
    rounded = rounding(x)
    assert not rounded[1, 2].isfinite()
    assert rounding is fake_quantise_tensor or torch.equal(rounded[0], torch.ones(4))
    if rounding is fake_quantise_rows:
        kernel = pack(np.eye(4, dtype=np.float32), (1, 1), "int8").multiply(x)
        np.testing.assert_array_equal(rounded.numpy(), kernel)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_zeros_stay_zeros(rounding) -> None:
    assert torch.equal(rounding(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_layers_compute_as_their_formats_do() -> None:
    module, x = captured()
    formats: Formats = {
        "query": SPARSE_INT8,
        "key": DENSE_INT8,
        "value": DENSE,
        "out": parse_format("bf16-4x1-80"),
        "mix": SPARSE_INT8,
    }
    m = module
    by_row, by_tensor = fake_quantise_rows(x), fake_quantise_tensor(x)
    query = F.linear(by_row, fake_quantise_weight(m.query.weight), m.query.bias)
    key = F.linear(by_tensor, fake_quantise_weight(m.key.weight), m.key.bias)
    y = query * torch.tanh(key) + F.linear(x, m.value.weight, m.value.bias)
    y = F.linear(round_to_bfloat16(y), round_to_bfloat16(m.out.weight), m.out.bias)
    y = fake_quantise_tensor(y.transpose(1, 2))
    expected = F.conv1d(y, fake_quantise_weight(m.mix.weight), m.mix.bias, padding=1)
    assert torch.equal(simulate(module, formats)(x)[0], expected)
    assert not torch.equal(module(x)[0], expected)


def test_a_copy_shares_parameters_and_keeps_names() -> None:
    module, x = captured()
    before = [(node.name, node.op) for node in module.graph.nodes]
    layers = ("query", "key", "value", "out", "mix")
    copy = simulate(module, dict.fromkeys(layers, SPARSE_INT8))
    assert [(node.name, node.op) for node in module.graph.nodes] == before
    names = [node.name for node in copy.graph.nodes]
    assert len(set(names)) == len(names)
    assert [name for name, _ in before] == [name for name in names if "fake_quantise" not in name]
    own = dict(module.named_parameters())
    assert all(parameter is own[name] for name, parameter in copy.named_parameters())
    for node in copy.graph.nodes:
        if "fake_quantise" in node.name:
            assert node.meta["val"].shape == node.args[0].meta["val"].shape
    copy(x)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_one_input_is_rounded_once_for_all_who_read_it_alike() -> None:
    module, _ = captured()
    formats = {"query": SPARSE_INT8, "key": SPARSE_INT8, "value": DENSE_INT8}
    inputs = [n for n in simulate(module, formats).graph.nodes if n.target is fake_quantise_rows]
    assert len(inputs) == 1 and {user.name for user in inputs[0].users} == {"query", "key"}


def test_dense_and_exact_formats_change_nothing() -> None:
    module, x = captured()
    formats = {"query": DENSE, "key": parse_format("f32-4x1-90"), "nowhere": DENSE}
    assert torch.equal(simulate(module, formats)(x)[0], module(x)[0])


def test_a_format_that_fits_no_layer_is_refused() -> None:
    module, _ = captured()
    for name in ("nowhere", "tanh"):
        with pytest.raises(InputError, match=f"'{name}' has the format int8"):
            simulate(module, {name: DENSE_INT8})


def test_a_computed_weight_is_refused() -> None:
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 8))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight.tanh())

    module = capture(Computed().eval(), (torch.randn(2, 8),)).module
    (layer,) = [node.name for node in module.graph.nodes if "linear" in str(node.target)]
    with pytest.raises(InputError, match="computes its weight"):
        simulate(module, {layer: DENSE_INT8})

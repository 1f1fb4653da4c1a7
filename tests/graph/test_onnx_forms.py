"""Operators that the exporter lacks, or reads otherwise than torch, in ONNX and OpenVINO."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import InputError
from edgeprune.graph.capture import capture
from edgeprune.graph.onnx_export import export_onnx

aten = torch.ops.aten
_GENERATOR = torch.Generator().manual_seed(0)
_BANK = torch.randn(3, 6, 4, generator=_GENERATOR)


def _grouped(x: Tensor) -> Tensor:
    ends = torch.histc(x[:, 0].abs().clamp(max=2.0).floor(), bins=3, min=0, max=2)
    # torch's own takes bfloat16 alone; this is what the library calls for float32.
    pytest.importorskip("transformers.integrations.moe")
    return torch.ops.transformers.grouped_mm_fallback(x, _BANK, ends.cumsum(0).to(torch.int32))


def _kept_empty(x: Tensor) -> Tensor:
    y = x.new_empty(8, 12)
    y[:, :6], y[:, 6:] = x, x * 2
    return y


_ANGLES = torch.randn(8, 3, generator=_GENERATOR)
_TABLE = torch.polar(torch.ones(8, 3), _ANGLES)


def _rotated(x: Tensor, table: Tensor) -> Tensor:
    turned = torch.view_as_complex(x.view(8, 3, 2)) * table
    return torch.view_as_real(turned.unsqueeze(0)).flatten(2) + turned.real.sum()


CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "asinh": torch.asinh,
    "atan2": lambda x: torch.atan2(x.round().relu() - 1, x.flip(0)),
    "atan2 of nothing": lambda x: torch.atan2(x * 0, x.relu()),
    "atanh": lambda x: torch.atanh(x.tanh() * 0.9),
    "avg_pool2d": lambda x: aten.avg_pool2d(x.view(1, 2, 4, 6), [9, 3], [9, 3], [0, 0], True),
    "bits": lambda x: x + ((x.int() & (x > 0)) + 10 * (x.int() | (x > 0))),
    "complex by angles": lambda x: _rotated(x, torch.polar(x[:, :3].abs(), _ANGLES)),
    "complex by a table": lambda x: _rotated(x, _TABLE.conj()),
    "copy": lambda x: aten.copy(x[:1], x[1:2]) + x,
    "empty": _kept_empty,
    "expand": lambda x: torch.cat([x[:0].expand(-1, 6), x[:1].expand(3, -1)]),
    "expm1": lambda x: torch.expm1(x * torch.logspace(-6, 0, 6)),
    "fourier": lambda x: torch.fft.fft(torch.fft.fftn(x), dim=0).imag / 9,
    "fourier back": lambda x: torch.fft.irfft(torch.polar(x[:, :4].abs(), _ANGLES[:, :1]), n=7),
    "fourier back, even": lambda x: torch.fft.irfft(torch.complex(x, x.flip(0)), n=10, dim=1),
    "fold": lambda x: torch.nn.functional.fold(x, (5, 4), 2, padding=(1, 0), stride=(2, 2)),
    "full_like": lambda x: x + torch.full_like(x, x.amax()),
    "fill": lambda x: x + aten.fill(x[:1], 3.0) + x[:1].clone().fill_(x.amax()),
    "flatten": lambda x: x.view(2, 4, 2, 3).flatten(-2),
    "grouped_mm": _grouped,
    "histc": lambda x: torch.histc(x, bins=7),
    "histc within bounds": lambda x: torch.histc(x, bins=5, min=-1, max=0.5),
    "logsumexp": lambda x: torch.logsumexp(x.view(2, 4, 6), [-1]),
    "logsumexp of nothing": lambda x: torch.logsumexp(x + float("-inf"), 0, keepdim=True),
    "permute": lambda x: x.view(2, 4, 6).repeat_interleave(2, -1).permute(0, -1, -2),
    "repeat_interleave": lambda x: x.view(2, 4, 6).repeat_interleave(3, dim=-2),
    "rms_norm": lambda x: torch.nn.functional.rms_norm(x, (6,), x[0], 1e-3),
    "scatter": lambda x: torch.where((x > 0).scatter(1, (x[:, :2] > 0).long(), False), x, 0.0),
    "transpose": lambda x: x.view(2, 4, 2, 3).flatten(-2).transpose(-1, -2),
    "unfold": lambda x: x.view(2, 4, 6).unfold(1, 3, 1) + 1,
    "unfold in the end": lambda x: x.unfold(-1, 2, 2),
}


class _Case(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x * 1.5)


@pytest.mark.parametrize("name", CASES)
def test_the_runtime_gives_what_torch_does(name: str, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    module = capture(_Case(CASES[name]), (x,)).module
    export_onnx(module, (x,), tmp_path / "m.onnx")
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    have = openvino.Core().compile_model(str(tmp_path / "m.onnx"), "CPU", exact)(x.numpy())[0]
    np.testing.assert_allclose(have, module(x)[0].numpy(), rtol=1e-5, atol=1e-6)


def test_writes_that_the_file_would_lose_are_refused(tmp_path: Path) -> None:
    def write(x: Tensor) -> Tensor:
        x.reshape(4, 12)[:, 1] += 1
        return x + 1

    x = torch.randn(8, 6)
    module = capture(_Case(write), (x,)).module
    with pytest.raises(InputError, match="test_onnx_forms.py.*writes into a part"):
        export_onnx(module, (x,), tmp_path / "m.onnx")

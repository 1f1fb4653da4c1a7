"""Outputs of an artifact for a quality function: right ones, or what was wrong with the call."""

from pathlib import Path

import numpy as np
import pytest

from edgeprune.devices import device
from edgeprune.devices.prediction import predictor
from edgeprune.errors import InputError
from edgeprune.latency.measure import save_inputs
from edgeprune.latency.reference_sweep import Layer, layer_onnx
from edgeprune.runtimes import runtime
from edgeprune.target import load_target


def test_a_batch_of_another_size_is_an_input_error_and_the_next_call_works(tmp_path: Path) -> None:
    layer = Layer("matmul", 4, 8, 3)
    (tmp_path / "model.onnx").write_bytes(layer_onnx(layer))
    artifact = runtime("openvino").convert(tmp_path / "model.onnx", tmp_path / "model.xml")
    example = np.ones(layer.input_shape(), np.float32)
    inputs = save_inputs([example], tmp_path / "inputs.npz")
    with predictor(device("local"), load_target("x86"), artifact, inputs) as predict:
        (before,) = predict((example,))
        assert before.shape == layer.output_shape()
        wanted = ",".join(map(str, example.shape))
        with pytest.raises(InputError, match=rf"\[32,8\], the model takes \[{wanted}\]; give"):
            predict((np.ones((32, 8), np.float32),))
        with pytest.raises(InputError, match="1 inputs, 2 were given"):
            predict((example, example))
        assert np.array_equal(predict((example,))[0], before)

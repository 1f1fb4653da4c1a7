"""Every operator against the cases that ONNX itself ships for it."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from edgeprune.errors import InputError
from edgeprune.onnx_import.loading import module_of
from edgeprune.onnx_import.registry import OPERATORS

# What gives another result, and why that is no fault.
LEFT_OUT = {
    "BFLOAT16": "every floating type is float32, which does not round as bfloat16 does",
    "empty_set": "torch has no largest entry of nothing",
    "top_k_same_values": "which of equal entries comes first is left open by torch",
}
LEAST_CASES = 1150
# Inputs that ONNX declares in float16 are computed in float32 here.
TOLERANCE_OF_HALF = 1e-2


def array(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    value = np.asarray(value)
    return value.astype(np.float32) if "float" in value.dtype.name else value


def with_known_inputs_stored(
    model: onnx.ModelProto, inputs: list[Any]
) -> tuple[onnx.ModelProto, list[Any]]:
    """Shapes, axes and the like as constants, as every exporter writes them."""
    model = copy.deepcopy(model)
    graph, kept, values = model.graph, [], []
    known = {
        node.input[slot]
        for node in graph.node
        for slot in getattr(OPERATORS.get((node.domain, node.op_type)), "host", ())
        if slot < len(node.input)
    }
    for info, value in zip(list(graph.input), inputs, strict=True):
        if info.name in known and isinstance(value, np.ndarray | np.generic):
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), info.name))
        else:
            kept.append(info)
            values.append(value)
    del graph.input[:]
    graph.input.extend(kept)
    return model, values


def differences(case: Any) -> Iterator[str]:
    """What is wrong with the outputs of a case.

    Raises:
        InputError: The case needs something that is refused.
    """
    for inputs, wanted in case.data_sets:
        model, values = with_known_inputs_stored(case.model, inputs)
        with torch.no_grad():
            found = module_of(model)(*(torch.from_numpy(np.array(array(x))) for x in values))
        for have, want in zip(found, wanted):
            half = "float16" in str(getattr(want, "dtype", ""))
            slack = TOLERANCE_OF_HALF if half else 1e-6
            have, want = have.numpy(), array(want)
            if have.shape != want.shape:
                yield f"{have.shape} instead of {want.shape}"
            elif not np.allclose(
                have, want, max(case.rtol, slack), max(case.atol, slack), equal_nan=True
            ):
                yield f"{have.reshape(-1)[:4]} instead of {want.reshape(-1)[:4]}"


@pytest.mark.filterwarnings("ignore")
def test_every_case_of_onnx_gives_the_expected_output_or_is_refused_in_one_line() -> None:
    good, wrong, refused = 0, [], []
    for case in collect_testcases(None):
        if any(part in case.name for part in LEFT_OUT):
            continue
        try:
            found = list(differences(case))
        except InputError as error:
            refused.append(str(error))
            continue
        wrong += [(case.name, text) for text in found]
        good += not found
    assert wrong == []
    assert good >= LEAST_CASES
    assert not [text for text in refused if "\n" in text or len(text) < 40]

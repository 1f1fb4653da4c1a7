"""LSTM, GRU and plain recurrent layers, as torch has them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from edgeprune.onnx_import.graph import OnnxNode
from edgeprune.onnx_import.host import Host
from edgeprune.onnx_import.registry import OWN, Call, operator

# Where torch's gates stand among those of ONNX.
_GATES: Mapping[str, Sequence[int]] = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_DEFAULT = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
RECURRENT = tuple(_GATES)
_LENGTHS, _HIDDEN, _CELL, _PEEPHOLES = range(4)


def separate_weights(node: OnnxNode, stored: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """torch's tensors by role, of ONNX's W (D, G*H, I), R (D, G*H, H) and B (D, 2*G*H) or None.

    Each direction has ``weight_ih``, ``weight_hh``, ``bias_ih`` and ``bias_hh``.
    """
    inward, recurrent, biases = stored
    assert inward is not None and recurrent is not None
    made: dict[str, Tensor] = {}
    for direction in range(inward.shape[0]):
        suffix = "_reverse" if direction else ""
        made[f"weight_ih_l0{suffix}"] = _reordered(node, inward[direction])
        made[f"weight_hh_l0{suffix}"] = _reordered(node, recurrent[direction])
        if biases is not None:
            first, second = biases[direction].chunk(2)
            made[f"bias_ih_l0{suffix}"] = _reordered(node, first)
            made[f"bias_hh_l0{suffix}"] = _reordered(node, second)
    return made


def _reordered(node: OnnxNode, rows: Tensor) -> Tensor:
    order = _GATES[node.op_type]
    parts = rows.chunk(len(order))
    return torch.cat([parts[place] for place in order])


@operator("LSTM", "GRU", "RNN")
def recurrent(c: Call) -> tuple[Tensor | None, ...]:
    """Of weights that are computed."""
    weights = separate_weights(c.node, [c.tensor(1), c.tensor(2), c.optional(3)])
    states = [c.inputs[i] if len(c.inputs) > i else None for i in (4, 5, 6, 7)]
    return _run(c, states, list(weights.values()))


@operator("LSTM", "GRU", "RNN", domain=OWN, weights=range(5, 13))
def stored_recurrent(c: Call) -> tuple[Tensor | None, ...]:
    """Of stored weights, which are in torch's order already."""
    return _run(c, list(c.inputs[1:5]), [c.tensor(i) for i in range(5, len(c.inputs))])


def _run(c: Call, states: Sequence[Any], weights: list[Tensor]) -> tuple[Tensor | None, ...]:
    _refuse_variants(c)
    x, batch_first = c.tensor(0), bool(c.attribute("layout", 0))
    x = x.transpose(0, 1) if batch_first else x
    _check_lengths(c, states[_LENGTHS], x.shape[0])
    if states[_PEEPHOLES] is not None:
        c.fail("has peepholes, which torch does not; export the model without them")
    directions = 2 if c.attribute("direction", "forward") == "bidirectional" else 1
    backward = c.attribute("direction", "forward") == "reverse"
    hidden = weights[1].shape[-1]
    kind = c.node.op_type
    start = [_state(value, x, directions, hidden, batch_first)
             for value in states[_HIDDEN : _CELL + (kind == "LSTM")]]  # fmt: skip
    outputs, *last = _function(c)(
        x.flip(0) if backward else x,
        start if kind == "LSTM" else start[0],
        weights,
        len(weights) > 2 * directions,
        1,
        0.0,
        False,
        directions == 2,
        False,
    )
    outputs = outputs.flip(0) if backward else outputs
    steps, batch = outputs.shape[:2]
    # (time, batch, directions * hidden), which ONNX keeps apart.
    apart = outputs.reshape(steps, batch, directions, hidden)
    if batch_first:
        return apart.transpose(0, 1), *(state.transpose(0, 1) for state in last)
    return apart.transpose(1, 2), *last


def _function(c: Call) -> Any:
    if c.node.op_type == "LSTM":
        return torch.lstm
    if c.node.op_type == "GRU":
        return torch.gru
    return torch.rnn_relu if _activations(c)[0] == "relu" else torch.rnn_tanh


def _activations(c: Call) -> list[str]:
    given = c.attribute("activations") or _DEFAULT[c.node.op_type]
    return [name.lower() for name in given]


def _refuse_variants(c: Call) -> None:
    kind, found = c.node.op_type, _activations(c)
    wanted = list(_DEFAULT[kind])
    usual = [wanted * n for n in (1, 2)] + ([["relu"], ["relu"] * 2] if kind == "RNN" else [])
    if found not in usual or c.attribute("clip") is not None or c.attribute("input_forget", 0):
        c.fail("has other activations or a clip, which torch's has not; use the usual ones")
    if kind == "GRU" and not c.attribute("linear_before_reset", 0):
        c.fail(
            "resets before the product (linear_before_reset=0), which torch's does not; build the "
            "layer with reset_after=True"
        )


def _check_lengths(c: Call, lengths: Any, steps: Any) -> None:
    if lengths is None:
        return
    known = isinstance(lengths, Host) and all(n == steps for n in lengths.numbers())
    if not known:
        c.fail("takes sequences of several lengths; export the model without sequence_lens")


def _state(value: Any, x: Tensor, directions: int, hidden: Any, batch_first: bool) -> Tensor:
    """The first state, zeros where none is given."""
    if value is None:
        return torch.zeros(directions, x.shape[1], hidden, dtype=x.dtype)
    state: Tensor = value.as_tensor() if isinstance(value, Host) else value
    return state.transpose(0, 1) if batch_first else state

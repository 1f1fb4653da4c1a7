"""Recurrent layers that bear their names, so that a profile tells whose time theirs is.

Reading ONNX names what stands behind a recurrent operator and not the operator, and a layer of two
directions is taken apart unnamed when it is compiled. Both are mended in a model as it was read:
later transformations merge what bears the names.
"""

from typing import Any

from edgeprune.runtimes.openvino_graph import readers, scope

# How many states an operator starts from; inputs are what it reads, these, lengths and weights.
_STATES = {"LSTMSequence": 2, "GRUSequence": 1, "RNNSequence": 1}


def recurrent_layers(model: Any) -> list[Any]:
    """The recurrent operators of an OpenVINO model."""
    return [op for op in model.get_ordered_ops() if op.get_type_name() in _STATES]


def name_recurrent_layers(model: Any) -> None:
    """Name the recurrent operators of a model just read from ONNX, each of one direction."""
    for op in recurrent_layers(model):
        named = next((reader for reader in readers(op) if scope(reader)), op)
        name = str(named.get_friendly_name())
        if op.get_attributes()["direction"] == "bidirectional":
            _take_apart(op, name)
        else:
            op.set_friendly_name(name)


def _take_apart(op: Any, name: str) -> None:
    """Replace an operator of two directions by one of each and what joins their outputs."""
    import openvino.opset13 as ops

    kind, attributes = op.get_type_name(), op.get_attributes()
    build = getattr(ops, kind.replace("Sequence", "_sequence").lower())
    read, *rest = [port.get_source_output() for port in op.inputs()]
    lengths = rest.pop(_STATES[kind])
    # States have the directions behind the samples, weights have them first.
    halves_of = [ops.split(port, int(i < _STATES[kind]), 2) for i, port in enumerate(rest)]
    halves = []
    for number, direction in enumerate(("forward", "reverse")):
        given = [half.output(number) for half in halves_of]
        given.insert(_STATES[kind], lengths)
        half = build(read, *given, **{**attributes, "direction": direction})
        half.set_friendly_name(f"{name}/{direction}")
        halves.append(half)
    for number, output in enumerate(op.outputs()):
        joined = ops.concat([half.output(number) for half in halves], 1)
        for reader in output.get_target_inputs():
            reader.replace_source_output(joined.output(0))

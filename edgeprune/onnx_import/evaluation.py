"""Running one node: on numbers where all its inputs are known, else on tensors."""

from collections.abc import Sequence

from edgeprune.errors import InputError
from edgeprune.onnx_import.graph import OnnxNode
from edgeprune.onnx_import.host import Host
from edgeprune.onnx_import.registry import HOST_OPERATORS, Call, Operator, Value

# Sizes and indices are few; whatever is larger is data.
_MOST_NUMBERS = 1024
# What torch and NumPy raise where operands do not fit.
_FAILURES = (RuntimeError, ValueError, TypeError, IndexError, KeyError, ArithmeticError)


def evaluate(node: OnnxNode, operator: Operator, inputs: Sequence[Value]) -> tuple[Value, ...]:
    """The node's results.

    Raises:
        InputError: The node asks for something that cannot be done; the line names it.
    """
    try:
        return _evaluated(node, operator, inputs)
    except _FAILURES as error:
        why = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{node.label} cannot be computed: {why}") from error


def _evaluated(node: OnnxNode, operator: Operator, inputs: Sequence[Value]) -> tuple[Value, ...]:
    call, result = Call(node, tuple(inputs)), None
    on_numbers = HOST_OPERATORS.get(node.op_type) if node.domain == "" else None
    if on_numbers is not None and _are_numbers(inputs) and on_numbers.takes(inputs):
        result = on_numbers.function(call)
    if result is None:
        result = operator.function(call)
    return result if isinstance(result, tuple) else (result,)


def _are_numbers(inputs: Sequence[Value]) -> bool:
    """Whether all inputs are known and none is a weight."""
    known = [x for x in inputs if isinstance(x, Host)]
    given = [x for x in inputs if x is not None]
    stored = any(x.tensor is not None and x.tensor.is_floating_point() for x in known)
    few = sum(x.array.size for x in known) <= _MOST_NUMBERS
    return bool(known) and len(known) == len(given) and few and not stored

"""Post-training int8 of an OpenVINO model by NNCF: of everything, or of certain layers alone."""

import contextlib
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError, UnavailableError
from edgeprune.runtimes.base import Arrays, as_arrays
from edgeprune.runtimes.openvino_graph import readers, scope

# What passes int8 on from layer to layer, if it is given any.
_BETWEEN = frozenset({"Add", "Multiply", "Relu", "Clamp", "PRelu", "MaxPool", "AvgPool", "Concat"})
_CONSTANTS = frozenset({"Constant", "Convert"})


def quantise(
    model: Any, onnx: Path, batches: Iterable[Arrays], layers: Collection[str] | None
) -> Any:
    """The model in int8.

    Args:
        model: Of OpenVINO.
        onnx: What it was made from, for messages.
        batches: Input tuples to calibrate on; with a single one biases of certain layers are not
            corrected, which is for models that are only timed.
        layers: Graph nodes whose layers are to be int8; all by default.

    Raises:
        InputError: NNCF cannot quantise the model.
        UnavailableError: NNCF is not installed.
    """
    try:
        with _quiet_stdout():
            import nncf
    except ImportError as error:
        raise UnavailableError(
            "int8 needs NNCF, which is not installed: pip install 'edgeprune[openvino]'"
        ) from error
    samples = [list(as_arrays(batch)) for batch in batches]
    if not samples:
        raise InputError("int8 calibration got no batch: give at least one")
    transformer = any(op.get_type_name() == "Softmax" for op in model.get_ops())
    options: dict[str, Any] = {
        "subset_size": len(samples),
        "model_type": nncf.ModelType.TRANSFORMER if transformer else None,
    }
    if layers is not None:
        names = ignored_operators(model, layers)
        options["ignored_scope"] = nncf.IgnoredScope(names=names, validate=False)
        # It would scale the inputs of layers that are left out, too, by a product of its own each.
        smooth = nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
        options["advanced_parameters"] = nncf.AdvancedQuantizationParameters(
            disable_bias_correction=len(samples) == 1, smooth_quant_alphas=smooth
        )
    try:
        with _quiet_stdout(), _quiet_log(nncf):
            return nncf.quantize(model, nncf.Dataset(samples), **options)
    except Exception as error:  # NNCF and what it runs raise many unrelated types
        raise InputError(
            f"NNCF cannot quantise {onnx}: {last_line(error)}; "
            "check the calibration batches, or try another version of nncf"
        ) from error


def ignored_operators(model: Any, layers: Collection[str]) -> list[str]:
    """Names of the operators that must not become int8, when only some layers shall.

    Elementwise operators between two such layers go along, so that activations stay in int8 from
    one to the next. Where several values meet, that pays only if all of them are int8 anyway:
    rounding the others takes time and costs exactness.
    """
    ops = [op for op in model.get_ordered_ops() if op.get_type_name() not in _CONSTANTS]
    chosen = {op.get_friendly_name() for op in ops if scope(op) in layers}
    joins = _int8_joins(ops, chosen)
    behind, before = _behind_and_before(ops, chosen | joins)
    kept = chosen | joins | (behind & before)
    return [name for op in ops if (name := op.get_friendly_name()) not in kept]


def _int8_joins(ops: Sequence[Any], chosen: set[str]) -> set[str]:
    """Where values meet that all come from an int8 layer or are rounded for another one anyway.

    What comes out of a join in full precision does not count, however it is rounded: OpenVINO
    2026.4 cannot compile an int8 layer that adds such a value to what it computes, in bfloat16.
    """
    behind, before = _behind_and_before(ops, chosen)
    joins: set[str] = set()
    full: set[str] = set()
    for op in (op for op in ops if op.get_type_name() in _BETWEEN):
        name, operands = op.get_friendly_name(), _inputs(op)
        if len(operands) < 2:
            full |= {name for operand in operands if operand.get_friendly_name() in full}
        elif all(_is_int8(operand, chosen | behind, chosen | before, full) for operand in operands):
            joins.add(name)
        else:
            full.add(name)
    return joins


def _is_int8(operand: Any, behind: set[str], before: set[str], full: set[str]) -> bool:
    """Whether an operand comes from an int8 layer, or is rounded for another reader anyway."""
    name = operand.get_friendly_name()
    reading = {reader.get_friendly_name() for reader in readers(operand)}
    return name in behind or (name not in full and bool(reading & before))


def _behind_and_before(ops: Sequence[Any], start: set[str]) -> tuple[set[str], set[str]]:
    """Names of operators behind the start and before it, over nothing but what passes int8 on."""
    passing = [op for op in ops if op.get_type_name() in _BETWEEN and len(_inputs(op)) == 1]
    return _reached(passing, start, _inputs), _reached(passing[::-1], start, readers)


def _reached(ops: Sequence[Any], start: set[str], beside: Callable[[Any], list[Any]]) -> set[str]:
    """Names of operators that join the start, directly or through each other."""
    reached: set[str] = set()
    for op in ops:
        if {neighbour.get_friendly_name() for neighbour in beside(op)} & (reached | start):
            reached.add(op.get_friendly_name())
    return reached


def _inputs(op: Any) -> list[Any]:
    """What makes the values that an operator reads, constants left out."""
    made = (value.get_source_output().get_node() for value in op.inputs())
    return [node for node in made if node.get_type_name() not in _CONSTANTS]


def last_line(error: BaseException) -> str:
    """What matters of a long message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet_stdout() -> Iterator[None]:
    """NNCF shows bars of its own on stdout, which belongs to results."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _quiet_log(nncf: Any) -> Iterator[None]:
    """NNCF lists every operator it leaves out, in hundreds of lines."""
    logger = nncf.common.logging.nncf_logger
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)

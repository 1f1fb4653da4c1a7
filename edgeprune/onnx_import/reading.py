"""Reading an ONNX file with every check that needs no knowledge of its operators."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import InputError, UnavailableError

if TYPE_CHECKING:
    import onnx

_OLDEST_OPSET = 7
_DOMAINS = ("", "ai.onnx")


def read_file(path: Path) -> "onnx.ModelProto":
    """The model of a file with its external data.

    Raises:
        InputError: Not there, no ONNX file or a damaged one, weights that are missing or lie
            outside the file's folder, or operators of an unknown version.
        UnavailableError: The package onnx is not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx.checker import ValidationError
    except ImportError as error:
        raise UnavailableError(
            "reading ONNX files needs onnx; run pip install 'edgeprune[openvino]'"
        ) from error
    if not path.is_file():
        raise InputError(f"{path} does not exist; give an ONNX file")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise InputError(f"{path} is damaged or no ONNX file; export the model again") from error
    if not model.graph.node or not model.graph.output:
        raise InputError(f"{path} holds no ONNX graph; export the model again")
    try:
        onnx.load_external_data_for_model(model, str(path.resolve().parent))
    except (ValidationError, ValueError, OSError) as error:
        raise InputError(
            f"{path}: its external weights cannot be read ({_first_line(error)}); keep them in "
            "the folder of the file, or save it with all weights inside"
        ) from error
    return with_functions_inlined(model)


def with_functions_inlined(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The model without functions of its own, and of a version that is known."""
    import onnx
    from onnx import inliner

    for entry in model.opset_import:
        if entry.domain in _DOMAINS and entry.version < _OLDEST_OPSET:
            raise InputError(
                f"the model uses opset {entry.version}, the oldest that is read is "
                f"{_OLDEST_OPSET}; convert it with onnx.version_converter.convert_version(model, 17)"
            )
        newest = onnx.defs.onnx_opset_version()
        if entry.domain in _DOMAINS and entry.version > newest:
            raise InputError(
                f"the model uses opset {entry.version}, the installed onnx knows {newest}; "
                "run pip install --upgrade onnx"
            )
    if not model.functions:
        return model
    inlined: onnx.ModelProto = inliner.inline_local_functions(model)
    return inlined


def check(model: "onnx.ModelProto", path: Path | None = None) -> None:
    """ONNX's own check of the model's form, once its operators are known.

    Raises:
        InputError: The model breaks the format.
    """
    from onnx import checker

    try:
        checker.check_model(model if path is None else str(path))
    except checker.ValidationError as error:
        place = "the model" if path is None else str(path)
        raise InputError(
            f"{place} is no valid ONNX model: {_first_line(error)}; export it again"
        ) from error


def opsets(model: "onnx.ModelProto") -> dict[str, int]:
    """Versions of the operators' definitions by domain."""
    return {_domain(entry.domain): entry.version for entry in model.opset_import}


def _domain(name: str) -> str:
    return "" if name in _DOMAINS else name


def _first_line(error: BaseException) -> str:
    lines: list[Any] = [line.strip() for line in str(error).splitlines() if line.strip()]
    return str(lines[0]) if lines else type(error).__name__

"""Reading an ONNX file with every check that needs no knowledge of its operators."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import InputError, UnavailableError

if TYPE_CHECKING:
    import onnx

_OLDEST_OPSET = 7
_DOMAINS = ("", "ai.onnx")


def read_file(path: Path) -> "onnx.ModelProto":
    """The model of a file, without the weights that stand in other files.

    Raises:
        InputError: Not there, no ONNX file or a damaged one.
        UnavailableError: The package onnx is not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
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
    return model


def add_external_weights(model: "onnx.ModelProto", path: Path) -> None:
    """Read the weights that stand in files beside the model's, in place.

    Raises:
        InputError: One is missing, damaged, or lies outside the folder of the model's file.
    """
    import onnx
    from onnx.checker import ValidationError

    try:
        onnx.load_external_data_for_model(model, str(path.resolve().parent))
    except (ValidationError, ValueError, OSError) as error:
        raise InputError(
            f"{path}: its external weights cannot be read ({_first_line(error)}); keep them in "
            "the folder of the file, or save it with all weights inside"
        ) from error


def with_functions_inlined(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The model without functions of its own, of a version that is known.

    Raises:
        InputError: Its operators are older or newer.
    """
    import onnx
    from onnx import inliner

    for entry in model.opset_import:
        if entry.domain in _DOMAINS and entry.version < _OLDEST_OPSET:
            raise InputError(
                f"the model uses opset {entry.version}, the oldest that is read is "
                f"{_OLDEST_OPSET}; run onnx.version_converter.convert_version(model, 17) on it"
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


class NodeChecker:
    """ONNX's own check of single nodes.

    That of whole models refuses files that every runtime reads, such as those whose outputs have
    no declared shape.
    """

    def __init__(self, model: "onnx.ModelProto") -> None:
        from onnx import checker

        self._checker = checker
        self._context = checker.C.CheckerContext()
        self._context.ir_version = model.ir_version
        self._context.opset_imports = {entry.domain: entry.version for entry in model.opset_import}

    def check(self, record: "onnx.NodeProto", name: str) -> None:
        """Inputs, outputs and attributes are those of the operator.

        Raises:
            InputError: They are not.
        """
        try:
            self._checker.check_node(record, self._context)
        except self._checker.ValidationError as error:
            raise InputError(
                f"node '{name}' ({record.op_type}) is no valid ONNX: {_first_line(error)}; export "
                "the model again"
            ) from error


def opsets(model: "onnx.ModelProto") -> dict[str, int]:
    """Versions of the operators' definitions by domain."""
    return {_domain(entry.domain): entry.version for entry in model.opset_import}


def _domain(name: str) -> str:
    return "" if name in _DOMAINS else name


def _first_line(error: BaseException) -> str:
    lines: list[Any] = [line.strip() for line in str(error).splitlines() if line.strip()]
    return str(lines[0]) if lines else type(error).__name__

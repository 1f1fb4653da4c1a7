"""From the description in an archive to a graph module."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgeprune.errors import InputError
from edgeprune.graph.modules import attach
from edgeprune.pt2_import.archive import Archive, element_type
from edgeprune.pt2_import.targets import INLINED, find_target

_SCHEMA = 8
# Names become source code of the module.
_PATH = re.compile(r"[A-Za-z_0-9]+(\.[A-Za-z_0-9]+)*")
_PLAIN = ("as_int", "as_float", "as_bool", "as_string", "as_ints", "as_floats", "as_bools")
_STORED = {"parameter": "parameter_name", "buffer": "buffer_name",
           "tensor_constant": "tensor_constant_name"}  # fmt: skip
_MEMORY_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last,
                   3: torch.channels_last_3d, 4: torch.preserve_format}  # fmt: skip

Json = Mapping[str, Any]


def load_pt2(path: Path | str) -> nn.Module:
    """A program saved by ``torch.export.save`` as a module: tensors in, a tuple of tensors out.

    Nothing is unpickled and no code of the file is run; sample inputs are not read. Inputs are the
    tensors among the arguments of the exported model, in order; outputs likewise.

    Raises:
        InputError: No such file, a damaged or foreign one, or one with pickled weights or calls of
            other functions than operators.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a .pt2 file of torch.export.save")
    archive = Archive(path)
    try:
        program = archive.program()
        _check_version(program, path)
        tensors = archive.tensors("weights") | archive.tensors("constants")
        return _ProgramReader(tensors).read(program["graph_module"]).eval()
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise InputError(
            f"{path} is damaged or of another torch ({type(error).__name__}: {error}); save it "
            "again with torch.export.save"
        ) from error


def _check_version(program: Json, path: Path) -> None:
    version = program["schema_version"]["major"]
    if version != _SCHEMA:
        raise InputError(
            f"{path} has version {version} of the format, not {_SCHEMA}; save it with torch 2.10 "
            "or later"
        )


class _ProgramReader:
    """Builds the graph of one program."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._graph = fx.Graph()
        self._root = nn.Module()

    def read(self, description: Json) -> fx.GraphModule:
        """The module of a graph and its signature."""
        values: dict[str, Any] = {}
        specs = description["signature"]["input_specs"]
        # Inputs come first in a graph, weights behind them.
        for spec in sorted(specs, key=lambda spec: "user_input" not in spec):
            self._add_input(spec, values)
        self._add_nodes(description["graph"]["nodes"], values)
        outputs = []
        for spec in description["signature"]["output_specs"]:
            if "user_output" in spec:
                outputs.append(self._argument(spec["user_output"]["arg"], values))
            elif "buffer_mutation" in spec:
                name = spec["buffer_mutation"]["buffer_name"]
                raise InputError(
                    f"the program updates '{name}' while it runs; export the model in eval mode"
                )
        self._graph.output(tuple(x for x in outputs if isinstance(x, fx.Node)))
        return fx.GraphModule(self._root, self._graph, "ExportedProgram")

    def _add_input(self, spec: Json, values: dict[str, Any]) -> None:
        if "user_input" in spec:
            argument = spec["user_input"]["arg"]
            if "as_tensor" not in argument:
                raise InputError("the program takes inputs that are no tensors; export it without")
            name = argument["as_tensor"]["name"]
            values[name] = self._graph.placeholder(_checked(name))
            return
        kind = next((kind for kind in _STORED if kind in spec), None)
        if kind is None:
            raise InputError(f"the program takes a {next(iter(spec))}; export a plain model")
        path = _checked(spec[kind][_STORED[kind]])
        attach(self._root, path, self._tensors[path])
        values[spec[kind]["arg"]["name"]] = self._graph.get_attr(path)

    def _add_nodes(self, nodes: Sequence[Json], values: dict[str, Any]) -> None:
        for node in nodes:
            if node["target"] in INLINED:
                self._inline(node, values)
                continue
            target = find_target(node["target"])
            args, kwargs = self._arguments(target, node["inputs"], values)
            self._store(self._graph.call_function(target, args, kwargs), node["outputs"], values)

    def _inline(self, node: Json, values: dict[str, Any]) -> None:
        """Put the part of a graph that a wrapper holds in the wrapper's place."""
        inputs = [entry["arg"] for entry in node["inputs"]][INLINED[node["target"]] :]
        part, given = inputs[0]["as_graph"]["graph"], inputs[1:]
        inner = {
            _name(wanted): self._argument(value, values)
            for wanted, value in zip(part["inputs"], given, strict=True)
        }
        self._add_nodes(part["nodes"], inner)
        made = [self._argument(output, inner) for output in part["outputs"]]
        names = [name for output in node["outputs"] for name in _names(output)]
        values.update(zip(names, made, strict=True))

    def _store(self, node: fx.Node, outputs: Sequence[Json], values: dict[str, Any]) -> None:
        names = [name for output in outputs for name in _names(output)]
        several = len(outputs) > 1 or any("as_tensors" in output for output in outputs)
        if not several:
            values.update((name, node) for name in names)
            return
        getitem = find_target("_operator.getitem")
        for place, name in enumerate(names):
            values[name] = self._graph.call_function(getitem, (node, place))

    def _arguments(
        self, target: Any, given: Sequence[Json], values: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments in the order of the operator's schema."""
        found = {entry["name"]: self._argument(entry["arg"], values) for entry in given}
        if not isinstance(target, torch._ops.OpOverload):
            return tuple(self._argument(entry["arg"], values) for entry in given), {}
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for argument in target._schema.arguments:
            if argument.name not in found:
                continue
            value = found[argument.name]
            if argument.kwarg_only or len(args) < target._schema.arguments.index(argument):
                kwargs[argument.name] = value
            else:
                args.append(value)
        return tuple(args), kwargs

    def _argument(self, argument: Json, values: dict[str, Any]) -> Any:
        (kind, value), *_ = argument.items()
        if kind in _PLAIN:
            return value
        if kind == "as_none":
            return None
        if kind in ("as_tensor", "as_name"):
            return values[value["name"] if kind == "as_tensor" else value]
        if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            return self._argument(value, values)
        if kind == "as_tensors":
            return [values[item["name"]] for item in value]
        if kind in ("as_sym_ints", "as_sym_floats", "as_sym_bools", "as_optional_tensors"):
            return [self._argument(item, values) for item in value]
        if kind == "as_scalar_type":
            return element_type(value)
        if kind == "as_device":
            return torch.device("cpu")
        if kind == "as_layout":
            return torch.strided
        if kind == "as_memory_format":
            return _MEMORY_FORMATS[value]
        raise InputError(f"the program passes '{kind[:60]}' to an operator; export a plain model")


def _checked(name: str) -> str:
    """A name that can stand in source code."""
    if not _PATH.fullmatch(name):
        raise InputError(f"the program holds the name {name[:60]!r}; rename it and export again")
    return name


def _name(argument: Json) -> str:
    (name,) = _names(argument)
    return name


def _names(argument: Json) -> list[str]:
    """Names of the values that an output or a parameter of a graph stands for."""
    (kind, value), *_ = argument.items()
    if kind == "as_tensor":
        return [value["name"]]
    if kind == "as_tensors":
        return [item["name"] for item in value]
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return [value["as_name"]]
    raise InputError(f"the program returns '{kind[:60]}' from an operator; export a plain model")

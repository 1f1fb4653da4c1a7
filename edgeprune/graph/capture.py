"""Capture a module as a flat graph of ATen operators with the module's own parameters."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from edgeprune.errors import CaptureError, InputError
from edgeprune.graph.functionalise import functionalise
from edgeprune.graph.naming import annotate_sources, keep_onnx_names, rename_nodes
from edgeprune.graph.ops import op_name
from edgeprune.graph.parametrizations import baked_copy, is_parametrized
from edgeprune.graph.running import evaluating, first_line, line_in_users_code, outputs, quiet

_NO_EFFECT = ("dropout", "feature_dropout", "alias", "alpha_dropout")


@dataclass(frozen=True, eq=False)
class Captured:
    """A module as a graph.

    Attributes:
        module: Positional tensors in, a flat tuple of tensors out. Parameters and buffers are the
            captured module's own, under their own names. Every node carries ``meta["val"]`` (a
            meta tensor or a number, at the example inputs), ``meta["module_path"]``,
            ``meta["source"]`` and, where a dimension is dynamic, ``meta["dynamic"]``: per
            dimension the ``(placeholder, dim)`` it equals, ``"derived"``, or None for static.
        example_inputs: The tensors at the deployed shape.
        notes: What a user should know about how it was captured.
    """

    module: fx.GraphModule
    example_inputs: tuple[Tensor, ...]
    notes: list[str] = field(default_factory=list)


def capture(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    sample_inputs: Sequence[Tensor] | None = None,
) -> Captured:
    """Export ``model`` and return it as a plain graph.

    Dimensions in which ``sample_inputs`` differ from ``example_inputs`` stay dynamic if the
    exported graph reproduces the model at the example inputs; otherwise they are fixed at the
    example's sizes and a note says so.

    A model with ``onnx_input_names`` and ``onnx_output_names`` gives its graph those names, with
    which it is exported again.

    Raises:
        CaptureError: The model cannot be exported; the message names the operator or the line.
        InputError: The model itself refuses its inputs.
    """
    example = tuple(example_inputs)
    _check_inputs(example)
    notes: list[str] = []
    with evaluating(model):
        return _capture(model, example, sample_inputs, notes)


def _capture(
    model: nn.Module,
    example: tuple[Tensor, ...],
    sample_inputs: Sequence[Tensor] | None,
    notes: list[str],
) -> Captured:
    _check_names(model)
    if is_parametrized(model):
        model, baked = baked_copy(model)
        notes += baked
    module: fx.GraphModule | None = None
    varying = _varying_dims(example, sample_inputs)
    if sample_inputs is not None and any(varying):
        module, reason = _export_dynamic(model, example, tuple(sample_inputs), varying)
        if module is None:
            notes.append(f"every shape is kept static because {reason}")
    compared = module is not None
    if module is None:
        module = _clean(_export(model, example, None))
    have = _record_hints(module, example)
    if not compared:
        _check_results(model, example, have, notes)
    keep_onnx_names(module.graph, model)
    return Captured(module, example, notes)


def _check_inputs(example: tuple[Any, ...]) -> None:
    for index, value in enumerate(example):
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise CaptureError(f"example input {index} is a {kind}; every input must be a tensor")
    if not example:
        raise CaptureError("example_inputs() is empty; give at least one tensor")


def _check_names(model: nn.Module) -> None:
    """Refuse parts that a graph module could not hold, whose own attributes have these names."""
    reserved = set(dir(fx.GraphModule(nn.Module(), fx.Graph()))) - set(dir(nn.Module()))
    parts = (name.partition(".")[0] for name in model.state_dict())
    for name in (*parts, *(name for name, _ in model.named_children())):
        if name in reserved:
            raise CaptureError(
                f"a part of {type(model).__name__} is called '{name}', as something of torch's "
                "own graphs is; give it another name, or wrap the model in a module"
            )


def _varying_dims(
    example: tuple[Tensor, ...], sample: Sequence[Tensor] | None
) -> list[dict[int, Any]]:
    if sample is None:
        return []
    if len(sample) != len(example) or any(
        a.dim() != b.dim() or a.dtype != b.dtype for a, b in zip(example, sample, strict=True)
    ):
        raise CaptureError(
            f"the batches hold {_describe(sample)} but the example inputs are "
            f"{_describe(example)}; both need the same tensors, up to their sizes"
        )
    return [
        {d: torch.export.Dim.AUTO for d in range(a.dim()) if a.size(d) != b.size(d)}
        for a, b in zip(example, sample, strict=True)
    ]


def _describe(values: Sequence[Tensor]) -> str:
    return ", ".join(f"{str(v.dtype).removeprefix('torch.')}{list(v.shape)}" for v in values)


def _export(
    model: nn.Module, inputs: tuple[Tensor, ...], dynamic: list[dict[int, Any]] | None
) -> fx.GraphModule:
    try:
        with torch.no_grad(), quiet():
            program = torch.export.export(
                model, inputs, dynamic_shapes=_as_tuple_spec(model, dynamic), strict=False
            )
            return program.module(check_guards=False)
    except InputError:
        raise  # the model's own words
    except Exception as error:
        raise CaptureError(_explain(error)) from error


def _as_tuple_spec(model: nn.Module, dynamic: list[dict[int, Any]] | None) -> Any:
    """Dynamic dimensions in the form that export wants: one entry a parameter of ``forward``."""
    if dynamic is None:
        return None
    import inspect

    parameters = list(inspect.signature(model.forward).parameters.values())
    if parameters and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL:
        return (tuple(dynamic),)
    return tuple(dynamic)


def _export_dynamic(
    model: nn.Module,
    example: tuple[Tensor, ...],
    sample: tuple[Tensor, ...],
    varying: list[dict[int, Any]],
) -> tuple[fx.GraphModule | None, str]:
    """A graph with dynamic shapes, or None and why not."""
    try:
        module = _clean(_export(model, sample, varying))
    except InputError as error:
        return None, f"export with dynamic shapes failed ({error})"
    try:
        want, have = outputs(model, example), outputs(module, example)
    except RuntimeError as error:
        return None, f"the exported graph is fixed to the batches' sizes ({first_line(error)})"
    if not _same(want, have):
        return None, "the exported graph differs at the example inputs"
    return module, ""


def _check_results(
    model: nn.Module, example: tuple[Tensor, ...], have: Sequence[Tensor], notes: list[str]
) -> None:
    """A model may take another path while it is exported; then the graph is another model."""
    want = outputs(model, example)
    if _same(want, have):
        return
    if not _same(want, outputs(model, example)):
        notes.append("the model gives other results each time, so that its graph is not compared")
    else:
        raise CaptureError(
            "the exported graph does not give what the model gives: the model takes another path "
            "while it is exported, as by torch.compiler.is_exporting(); take that branch out"
        )


def _same(want: Sequence[Tensor], have: Sequence[Tensor]) -> bool:
    return len(want) == len(have) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
        for a, b in zip(want, have, strict=True)
    )


def _clean(exported: fx.GraphModule) -> fx.GraphModule:
    """Flat outputs, no guards, no in-place writes where they can be avoided, readable names."""
    graph = exported.graph
    graph.set_codegen(fx.graph.CodeGen())
    for node in list(graph.nodes):
        if node.op == "call_module" and not node.users:
            graph.erase_node(node)
        elif node.op == "output":
            node.args = (_output_leaves(node.args[0]),)
        elif node.op == "call_function":
            _simplify(graph, node)
    functionalise(graph)
    graph.eliminate_dead_code()
    for node in list(graph.nodes):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)
    _share_tied_parameters(exported, graph)
    _record_dynamic_dims(graph)
    annotate_sources(graph)
    rename_nodes(graph)
    graph.lint()
    return fx.GraphModule(exported, graph, "Captured")


def _output_leaves(result: Any) -> tuple[Node, ...]:
    leaves = torch.utils._pytree.tree_leaves(result, is_leaf=lambda x: isinstance(x, Node))
    nodes = tuple(leaf for leaf in leaves if isinstance(leaf, Node))
    if not nodes:
        raise CaptureError("the model returns no tensor; its forward must return one or more")
    return nodes


def _simplify(graph: fx.Graph, node: Node) -> None:
    """Remove assertions and what does nothing at inference; one name for what does the same."""
    name = op_name(node)
    if name.startswith(("_assert", "sym_constrain")):
        graph.erase_node(node)
    elif name in _NO_EFFECT and not (len(node.args) > 2 and node.args[2]):
        source = node.args[0]
        assert isinstance(source, Node)
        node.replace_all_uses_with(source)
        graph.erase_node(node)
    elif name == "lift_fresh_copy":
        node.target = torch.ops.aten.clone.default  # the same, and exporters know it
    elif callable(node.target) and getattr(node.target, "__name__", "") == "getitem":
        node.target = operator.getitem


def _share_tied_parameters(module: fx.GraphModule, graph: fx.Graph) -> None:
    """Read every tensor through one node, so that tied parameters have one name."""
    seen: dict[int, Node] = {}
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        value = operator.attrgetter(str(node.target))(module)
        first = seen.setdefault(id(value), node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def _record_dynamic_dims(graph: fx.Graph) -> None:
    """Note which dimension of which input every dynamic dimension equals."""
    origin: dict[str, tuple[str, int]] = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            continue
        dims: list[Any] = [None] * value.dim()
        for dim, size in enumerate(value.shape):
            if str(size).isdigit():
                continue
            if node.op == "placeholder":
                origin.setdefault(str(size), (str(node.target), dim))
            dims[dim] = origin.get(str(size), "derived")
        if any(dims):
            node.meta["dynamic"] = tuple(dims)


class _HintRecorder(fx.Interpreter):
    """Runs the graph once and keeps shapes, strides and numbers, not values."""

    def run_node(self, n: Node) -> Any:
        """The node's result, whose shape is written to the node."""
        result = super().run_node(n)
        n.meta["val"] = torch.utils._pytree.tree_map(_as_hint, result)
        return result


def _as_hint(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")


def _record_hints(module: fx.GraphModule, example: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Run the graph at the example inputs; its outputs."""
    try:
        with torch.no_grad():
            found: tuple[Tensor, ...] = _HintRecorder(module).run(*(x.clone() for x in example))
            return found
    except RuntimeError as error:
        raise CaptureError(f"the exported graph does not run: {first_line(error)}") from error


def _explain(error: BaseException) -> str:
    """One line: what failed and the last line of the user's code that was running."""
    line = line_in_users_code(error)
    place = f" at {line}" if line else ""
    remedy = "rewrite that part without control flow or shapes that depend on values"
    return f"the model cannot be exported{place}: {first_line(error)}; {remedy}"

"""The module that an ONNX graph becomes: it runs the nodes one after the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.errors import InputError
from edgeprune.onnx_import.evaluation import evaluate
from edgeprune.onnx_import.graph import OnnxNode
from edgeprune.onnx_import.host import Host
from edgeprune.onnx_import.registry import Operator, Value
from edgeprune.onnx_import.types import as_type

Values = dict[str, Value]


@dataclass(frozen=True)
class InputSpec:
    """An input as the file declares it.

    Attributes:
        name: As the file calls it.
        shape: Sizes; the name of one that is left open, None for an open one without a name. None
            as a whole where even the number of dimensions is open.
        dtype: Floating types are float32.
    """

    name: str
    shape: tuple[int | str | None, ...] | None
    dtype: torch.dtype

    def accepts(self, value: Tensor) -> bool:
        """Whether a tensor has the type, the dimensions and the fixed sizes."""
        kinds = value.is_floating_point() == self.dtype.is_floating_point
        if not kinds or self.shape is None:
            return kinds
        return value.dim() == len(self.shape) and all(
            not isinstance(want, int) or want == have
            for want, have in zip(self.shape, value.shape, strict=True)
        )

    def __str__(self) -> str:
        sizes = "of any shape" if self.shape is None else list(self.shape)
        return f"'{self.name}' {str(self.dtype).removeprefix('torch.')} {sizes}".replace("'", "")


@dataclass(frozen=True)
class Stored:
    """A constant that lives in a parameter or buffer of this name."""

    name: str
    value: Host


Source = str | Host | Stored | None
"""Where an input of a node comes from: a value's name, a constant, or nothing."""


class OnnxOperator(nn.Module):
    """One node. It is a module so that a captured graph names what it computes after the node."""

    def __init__(self, node: OnnxNode, operator: Operator) -> None:
        super().__init__()
        self._node = node
        self._operator = operator

    def forward(self, *inputs: Value) -> tuple[Value, ...]:
        """The node's results."""
        return evaluate(self._node, self._operator, inputs)


@dataclass(frozen=True)
class Step:
    """One node in the order of execution.

    Attributes:
        module: Path of its module; empty for a choice between branches.
        branches: Of such a choice, by the name of the attribute.
    """

    node: OnnxNode
    module: str
    inputs: tuple[Source, ...]
    branches: Mapping[str, "Program"]


@dataclass(frozen=True)
class Program:
    """Steps, and where the outputs come from."""

    steps: tuple[Step, ...]
    outputs: tuple[Source, ...]


class OnnxModel(nn.Module):
    """An ONNX file as a module: tensors in the order of its inputs, a tuple of its outputs.

    Weights are parameters, and statistics of batch normalisation buffers, under the names of the
    file with dots for slashes and colons.

    Attributes:
        onnx_input_names: Names of the inputs; what is exported of the model has them again.
        onnx_output_names: Names of the outputs, likewise.
        onnx_input_axes: Per input its sizes, by name where the file leaves them open.
        inputs: The inputs as the file declares them.
        notes: What differs from the file.
    """

    def __init__(
        self, inputs: Sequence[InputSpec], output_names: Sequence[str], notes: Sequence[str]
    ) -> None:
        super().__init__()
        self.inputs = tuple(inputs)
        self.onnx_input_names = tuple(spec.name for spec in inputs)
        self.onnx_output_names = tuple(output_names)
        self.onnx_input_axes = tuple(spec.shape or () for spec in inputs)
        self.notes = tuple(notes)
        self._program = Program((), ())

    def example_inputs(self, **sizes: int) -> tuple[Tensor, ...]:
        """Random inputs of the declared shapes; whole numbers are zeros.

        Args:
            sizes: Of the dimensions that the file leaves open, by name.

        Raises:
            InputError: An open dimension has no size.
        """
        generator = torch.Generator().manual_seed(0)
        made = []
        for spec in self.inputs:
            shape = [sizes.get(size, size) if isinstance(size, str) else size
                     for size in spec.shape or (None,)]  # fmt: skip
            if not all(isinstance(size, int) for size in shape):
                raise InputError(
                    f"input {spec} leaves sizes open; give them, such as "
                    "example_inputs(batch=1), or make the tensors yourself"
                )
            fixed = [int(size) for size in shape if size is not None]
            floating = spec.dtype.is_floating_point
            made.append(
                torch.randn(fixed, generator=generator)
                if floating
                else torch.zeros(fixed, dtype=spec.dtype)
            )
        return tuple(made)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the file.

        Raises:
            InputError: Inputs that the file does not take.
        """
        if len(inputs) != len(self.inputs):
            names = ", ".join(self.onnx_input_names)
            raise InputError(f"{len(inputs)} inputs for a model with {len(self.inputs)}: {names}")
        values: Values = {}
        for spec, value in zip(self.inputs, inputs, strict=True):
            if not spec.accepts(value):
                given = f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
                raise InputError(f"input {spec} was given {given}; change the example inputs")
            values[spec.name] = as_type(value, spec.dtype)
        results = self._run(self._program, values)
        return tuple(_as_tensor(value) for value in results)

    def _run(self, program: Program, values: Values) -> tuple[Value, ...]:
        """The program's outputs; what it computes is added to ``values``."""
        for step in program.steps:
            inputs = [self._fetch(source, values) for source in step.inputs]
            if step.branches:
                results = self._choose(step, inputs[0], values)
            else:
                results = attrgetter(step.module)(self)(*inputs)
            values.update((n, r) for n, r in zip(step.node.outputs, results) if n)
        return tuple(self._fetch(source, values) for source in program.outputs)

    def _choose(self, step: Step, condition: Value, values: Values) -> tuple[Value, ...]:
        """The results of one of two branches."""
        if not isinstance(condition, Host):
            raise InputError(
                f"{step.node.label} chooses by data; export the model with one branch only"
            )
        name = "then_branch" if bool(condition.numbers()[0]) else "else_branch"
        return self._run(step.branches[name], dict(values))

    def _fetch(self, source: Source, values: Values) -> Value:
        if isinstance(source, str):
            return values[source]
        if isinstance(source, Stored):
            tensor: Any = attrgetter(source.name)(self)
            return source.value.bound(tensor)
        return source


def _as_tensor(value: Value) -> Tensor:
    assert value is not None  # the file's own check sees to it
    return value.as_tensor() if isinstance(value, Host) else value

"""The table of operators: what runs an ONNX node, and how its constants are stored."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from torch import Tensor

from edgeprune.errors import InputError
from edgeprune.onnx_import.host import Host
from edgeprune.suggest import suggestion

if TYPE_CHECKING:
    from edgeprune.onnx_import.graph import OnnxNode

Value = Tensor | Host | None
Result = Any
"""A value, or a tuple of them, one for each output."""

# What edgeprune itself makes of several nodes.
OWN = "edgeprune"
MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Call:
    """A node with the values of its inputs.

    Attributes:
        node: The node as the file has it.
        inputs: A value each; None where an optional one is left out.
    """

    node: "OnnxNode"
    inputs: tuple[Value, ...]

    @property
    def opset(self) -> int:
        """Version of the operators' definitions that the file uses."""
        return self.node.opset

    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return len(self.inputs) > index and self.inputs[index] is not None

    def value(self, index: int) -> Tensor | Host:
        """An input that must be there."""
        value = self.inputs[index] if len(self.inputs) > index else None
        if value is None:
            self.fail(f"lacks input {index}")
        return value

    def tensor(self, index: int) -> Tensor:
        """An input as a tensor."""
        value = self.value(index)
        return value.as_tensor() if isinstance(value, Host) else value

    def optional(self, index: int) -> Tensor | None:
        """An input as a tensor, None where it is left out."""
        return self.tensor(index) if self.has(index) else None

    def host(self, index: int, what: str) -> Host:
        """An input whose numbers must be known without running the network."""
        value = self.value(index)
        if isinstance(value, Tensor):
            self.fail(
                f"computes its {what} from data; export the model with fixed {what}, or cut that "
                "part off"
            )
        return value

    def numbers(self, index: int, what: str) -> list[Any]:
        """The known numbers of an input in one list."""
        return self.host(index, what).numbers()

    def number(self, index: int, what: str) -> Any:
        """The single known number of an input."""
        return self.numbers(index, what)[0]

    def operand(self, index: int, rank: int) -> Any:
        """A single number as such where the other operand has this rank, else a tensor."""
        value = self.value(index)
        if isinstance(value, Host) and value.tensor is None:
            single = value.array.size == 1 and value.array.ndim <= rank
            return value.numbers()[0] if single else value.as_tensor()
        return self.tensor(index)

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute, or its default."""
        return self.node.attributes.get(name, default)

    def fail(self, problem: str) -> NoReturn:
        """Stop with one line that names the node.

        Raises:
            InputError: Always.
        """
        raise InputError(f"{self.node.label} {problem}")


Function = Callable[[Call], Result]
HostFunction = Callable[[Call], Host | tuple[Host, ...] | None]
"""None leaves the call to the operator on tensors."""


@dataclass(frozen=True)
class Operator:
    """What runs an operator.

    Attributes:
        function: From the call to its results.
        host: Inputs of which only known numbers are read; they are not stored as tensors.
        weights: Inputs that are learned wherever they are constant.
        buffers: Inputs that are never learned.
        entrywise: Whether constants of one element stay numbers.
    """

    function: Function
    host: tuple[int, ...] = ()
    weights: tuple[int, ...] = ()
    buffers: tuple[int, ...] = ()
    entrywise: bool = False


@dataclass(frozen=True)
class HostOperator:
    """What runs an operator whose inputs are all known numbers.

    Attributes:
        function: From the call to the numbers of the result.
        symbolic: Inputs that may hold symbols; None is all of them.
    """

    function: HostFunction
    symbolic: tuple[int, ...] | None

    def takes(self, inputs: Iterable[Value]) -> bool:
        """Whether it can run on these values."""
        return all(
            not isinstance(x, Host) or not x.symbolic or self.symbolic is None or i in self.symbolic
            for i, x in enumerate(inputs)
        )


OPERATORS: dict[tuple[str, str], Operator] = {}
HOST_OPERATORS: dict[str, "HostOperator"] = {}
REFUSED: dict[tuple[str, str], str] = {}


def operator(
    *names: str,
    domain: str = "",
    host: Iterable[int] = (),
    weights: Iterable[int] = (),
    buffers: Iterable[int] = (),
    entrywise: bool = False,
) -> Callable[[Function], Function]:
    """Register what runs the operators of these names."""

    def register(function: Function) -> Function:
        made = Operator(function, tuple(host), tuple(weights), tuple(buffers), entrywise)
        for name in names:
            if (domain, name) in OPERATORS:
                raise ValueError(f"two functions for the operator {name}")
            OPERATORS[domain, name] = made
        return function

    return register


def host_operator(
    *names: str, symbolic: tuple[int, ...] | None = None
) -> Callable[[HostFunction], HostFunction]:
    """Register what runs operators of the main domain on known numbers."""

    def register(function: HostFunction) -> HostFunction:
        for name in names:
            if name in HOST_OPERATORS:
                raise ValueError(f"two functions for the operator {name} on numbers")
            HOST_OPERATORS[name] = HostOperator(function, symbolic)
        return function

    return register


def refuse(*names: str, because: str, domains: Iterable[str] = ("",)) -> None:
    """Register operators that cannot be pruned through, with the remedy."""
    for domain in domains:
        for name in names:
            REFUSED[domain, name] = because


def find_operator(node: "OnnxNode") -> Operator:
    """What runs a node.

    Raises:
        InputError: The operator is not known or refused; the line names it, its node and a remedy.
    """
    key = (node.domain, node.op_type)
    if key in OPERATORS:
        return OPERATORS[key]
    if key in REFUSED:
        raise InputError(f"{node.label} {REFUSED[key]}")
    known = [name for domain, name in OPERATORS if domain == node.domain]
    hint = suggestion(node.op_type, known) if known else ""
    close = f"; {hint}" if hint.startswith("did you mean") else ""
    domain = node.domain or "ai.onnx"
    raise InputError(
        f"{node.label} is an operator of the domain '{domain}' that is not known{close}; "
        "export the model without it, or cut that part off"
    )

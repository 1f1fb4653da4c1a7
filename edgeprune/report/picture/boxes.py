"""What a picture of a network is made of: boxes, and lines between them."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["input", "layer", "operator", "output"]


@dataclass(frozen=True)
class Box:
    """One box of the picture.

    Attributes:
        name: Of the graph node.
        kind: What it stands for.
        path: Module path of the layer, or of the module that calls the operator.
        module: Path of the module around it.
        operators: What it computes, in order.
        detail: Sizes, for a person.
        tensors: Its parameters.
        parameters: How many they hold.
        consumed: Structures along what it reads.
        produced: Structures along what it makes.
        reasons: Why something of its weights, or of what it touches, cannot be pruned.
        frozen: Whether it is a layer of which nothing can be pruned.
    """

    name: str
    kind: Kind
    path: str
    module: str
    operators: tuple[str, ...]
    detail: str
    tensors: tuple[str, ...] = ()
    parameters: int = 0
    consumed: tuple[str, ...] = ()
    produced: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    frozen: bool = False

    @property
    def structures(self) -> tuple[str, ...]:
        """All structures it has a side in."""
        return tuple(dict.fromkeys((*self.consumed, *self.produced)))


Edge = tuple[str, str]


@dataclass(frozen=True)
class Diagram:
    """Boxes in the order of execution, and the lines between them."""

    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]

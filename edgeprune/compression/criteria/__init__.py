"""Criteria: in which order the units of a structure go. One file each, registered here."""

from importlib import import_module
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgeprune.compression.criteria.context import CriterionContext
from edgeprune.errors import InputError
from edgeprune.graph.structure import Structure
from edgeprune.suggest import suggestion


class Criterion(Protocol):
    """Ranks the units of a structure.

    Attributes:
        name: How recipes call it; the name of its file.
        needs_gradients: Whether the context must hold gradients.
    """

    name: str
    needs_gradients: bool

    def order(self, structure: Structure, context: CriterionContext) -> npt.NDArray[np.int64]:
        """All unit indices, the first to be removed first."""


# Name (and file) of each criterion, and its class.
_CLASSES = {
    "magnitude": "Magnitude",
    "random": "Random",
    "second_order": "SecondOrder",
    "taylor": "Taylor",
}


def names() -> tuple[str, ...]:
    """The criteria there are."""
    return tuple(_CLASSES)


def criterion(name: str) -> Criterion:
    """The criterion of this name.

    Raises:
        InputError: There is none; the closest name is suggested.
    """
    if name not in _CLASSES:
        raise InputError(f"there is no criterion '{name}'; {suggestion(name, _CLASSES)}")
    module = import_module(f"edgeprune.compression.criteria.{name}")
    found: Criterion = getattr(module, _CLASSES[name])()
    return found

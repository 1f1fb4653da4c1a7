"""Boxes by the repeated modules they belong to, such as the layers of an encoder."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.report.picture.boxes import Box, Edge

# A block with more boxes is taken apart into its modules.
_MOST_BOXES = 16
# Columns of one block; what is longer goes on in the next.
_MOST_COLUMNS = 11
# Numbered modules of fewer boxes each are no blocks of their own.
_LEAST_BOXES = 2
_NUMBERED = re.compile(r"\d$")


@dataclass(frozen=True)
class Block:
    """Boxes that are drawn together, in the order of execution.

    Attributes:
        path: Module path that all have in common; empty for boxes of no block.
        boxes: Names.
        goes_on: Whether the block before it is of the same module.
    """

    path: str
    boxes: tuple[str, ...]
    goes_on: bool = False

    @property
    def title(self) -> str:
        """What its frame says."""
        return f"{self.path} (continued)" if self.goes_on else self.path


def make_blocks(boxes: Sequence[Box], edges: Sequence[Edge]) -> list[Block]:
    """Runs of boxes of one module, each at most as long as a picture is wide."""
    frame_of = _frames(boxes)
    found: list[tuple[str, list[str]]] = []
    columns: dict[str, int] = {}
    for box in boxes:
        path = frame_of[box.name]
        if not found or found[-1][0] != path:
            found.append((path, []))
        here = found[-1][1]
        column = 1 + max((columns[a] for a, b in edges if b == box.name and a in here), default=-1)
        if column >= _MOST_COLUMNS:
            column = 0
            found.append((path, here := []))
        here.append(box.name)
        columns[box.name] = column
    before = [None, *(path for path, _ in found)]
    return [Block(path, tuple(names), path == last) for (path, names), last in zip(found, before)]


def _frames(boxes: Sequence[Box]) -> dict[str, str]:
    """The module path under which each box is drawn."""
    count: Counter[str] = Counter()
    children: dict[str, set[str]] = {}
    for box in boxes:
        for module in _modules(box):
            count[module] += 1
            children.setdefault(module.rpartition(".")[0], set()).add(module)

    def repeats(module: str) -> bool:
        inside = children.get(module, set())
        if len(inside) == 1 and count[next(iter(inside))] == count[module]:
            return repeats(next(iter(inside)))  # it only holds a list of modules
        numbered = [child for child in inside if _NUMBERED.search(child)]
        boxed = sum(count[child] for child in numbered)
        return len(numbered) > 1 and boxed >= _LEAST_BOXES * len(numbered)

    def frame(box: Box) -> str:
        fitting = (m for m in _modules(box) if count[m] <= _MOST_BOXES and not repeats(m))
        return next(fitting, "")

    chosen = {box.name: frame(box) for box in boxes}
    used = Counter(chosen.values())
    return {name: path if used[path] > 1 else "" for name, path in chosen.items()}


def _modules(box: Box) -> list[str]:
    """Paths of the modules around a box, the outermost first."""
    parts = box.module.split(".") if box.module else []
    return [".".join(parts[: end + 1]) for end in range(len(parts))]

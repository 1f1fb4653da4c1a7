"""Many layers in few words."""

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
_MOST = 2


def short_list(names: Sequence[str], path: str = "") -> str:
    """Names that differ in numbered modules as one, the first few of them, and how many more.

    Args:
        names: Module paths, such as ``layer.0.query`` and ``layer.1.query``.
        path: Names inside this module are written without it, with a leading dot.
    """
    inside = f"{path}." if path else None
    relative = [
        f".{n.removeprefix(inside)}" if inside and n.startswith(inside) else n for n in names
    ]
    alike: dict[str, list[list[int]]] = {}
    for name in relative:
        numbers = [int(number) for number in _NUMBER.findall(name)]
        alike.setdefault(_NUMBER.sub("#", name), []).append(numbers)
    merged = [_merged(pattern, found) for pattern, found in alike.items()]
    rest = sum(len(found) for found in list(alike.values())[_MOST:])
    shown = ", ".join(merged[:_MOST])
    return f"{shown} and {rest} more" if rest else shown


def _merged(pattern: str, found: Sequence[Sequence[int]]) -> str:
    """A pattern with the numbers that stand for ``#``: one, a range, or a star."""
    columns = [sorted(set(column)) for column in zip(*found)]
    varying = sum(len(column) > 1 for column in columns)
    for numbers in columns:
        whole = len(numbers) == numbers[-1] - numbers[0] + 1
        text = str(numbers[0])
        if len(numbers) > 1:
            text = f"{numbers[0]}-{numbers[-1]}" if whole and varying == 1 else "*"
        pattern = pattern.replace("#", text, 1)
    return pattern

"""Frozen dataclasses checked on construction and read strictly from YAML.

A field's type hint says all there is to check, so that a new setting is one line::

    samples: Annotated[int, Range(1)] = 1024

Unknown keys are errors that name the closest known one; nothing is dropped or guessed.
"""

import math
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from edgeprune.errors import InputError
from edgeprune.suggest import suggestion

T = TypeVar("T")

# YAML 1.1 reads 4e-4 (without a point) as text; people mean a number.
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


@dataclass(frozen=True)
class Range:
    """Bounds of a number; ``above`` excludes its value, ``low`` and ``high`` include theirs."""

    low: float | None = None
    high: float | None = None
    above: float | None = None

    def holds(self, value: float) -> bool:
        """Whether the value lies within the bounds."""
        return (
            math.isfinite(value)
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
        )

    def __str__(self) -> str:
        parts = []
        if self.above is not None:
            parts.append(f"above {self.above:g}")
        if self.low is not None:
            parts.append(f"at least {self.low:g}")
        if self.high is not None:
            parts.append(f"at most {self.high:g}")
        return " and ".join(parts)


class Checked:
    """Mixin for frozen dataclasses: every field is checked against its type hint."""

    def __post_init__(self) -> None:
        for name, hint in _hints(type(self)).items():
            value = _convert(hint, getattr(self, name), name)
            object.__setattr__(self, name, value)


def from_mapping(cls: type[T], data: object, where: str, **extra: Any) -> T:
    """Build a dataclass from a parsed YAML mapping.

    Args:
        cls: A frozen dataclass with the ``Checked`` mixin.
        data: What the YAML parser returned.
        where: The file, for messages.
        extra: Fields that do not come from the file; their names are not accepted as keys.

    Raises:
        InputError: not a mapping, unknown or missing keys, a value of the wrong kind.
    """
    try:
        return _build(cls, data, "", extra)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error.__cause__


def read_yaml(path: Path) -> Any:
    """Parse one YAML file with the safe loader.

    Raises:
        InputError: unreadable file or broken YAML, with its line.
    """
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise InputError(f"{path}{line}: not valid YAML ({problem})") from error


def _build(cls: type[T], data: object, prefix: str, extra: Mapping[str, Any]) -> T:
    hints = _hints(cls)
    known = [name for name in hints if name not in extra]
    if not isinstance(data, Mapping):
        place = f"'{prefix.rstrip('.')}'" if prefix else "the file"
        raise InputError(f"{place} must hold keys ({', '.join(known)}), not {_kind(data)}")
    values = dict(extra)
    for key, value in data.items():
        if key not in known:
            raise InputError(f"unknown key '{prefix}{key}'; {suggestion(str(key), known)}")
        values[key] = _convert(hints[key], value, f"{prefix}{key}")
    try:
        return cls(**values)
    except TypeError as error:
        missing = [name for name in known if name not in values and not _has_default(cls, name)]
        if not missing:
            raise
        raise InputError(f"missing key '{prefix}{missing[0]}'") from error


def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _has_default(cls: type, name: str) -> bool:
    return hasattr(cls, name)


def _convert(hint: Any, value: Any, name: str) -> Any:
    """The value as the hint wants it, or an InputError that names the key."""
    origin = get_origin(hint)
    if origin is Annotated:
        base, *limits = get_args(hint)
        return _within(_convert(base, value, name), limits, name)
    if origin is Literal:
        return _one_of(get_args(hint), value, name)
    if origin in (Union, types.UnionType):
        return _any_of(get_args(hint), value, name)
    if origin is tuple:
        return _sequence(get_args(hint)[0], value, name)
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return _mapping(get_args(hint), value, name)
    if is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else _build(hint, value, f"{name}.", {})
    return _scalar(hint, value, name)


def _within(value: Any, limits: list[Any], name: str) -> Any:
    for limit in limits:
        items = value if isinstance(value, tuple) else (value,)
        for item in items:
            if isinstance(limit, Range) and item is not None and not limit.holds(item):
                raise InputError(f"'{name}' is {item}; it must be {limit}")
    return value


def _one_of(choices: tuple[Any, ...], value: Any, name: str) -> Any:
    if value in choices and type(value) in {type(choice) for choice in choices}:
        return value
    hint = suggestion(str(value), [str(choice) for choice in choices])
    raise InputError(f"'{name}' is '{value}'; {hint}")


def _any_of(options: tuple[Any, ...], value: Any, name: str) -> Any:
    if value is None and type(None) in options:
        return None
    problem: InputError | None = None
    for option in options:
        if option is type(None):
            continue
        try:
            return _convert(option, value, name)
        except InputError as error:
            problem = problem or error
    raise problem or InputError(f"'{name}' cannot be {_kind(value)}")


def _sequence(item_hint: Any, value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise InputError(f"'{name}' must be a list, not {_kind(value)}")
    return tuple(_convert(item_hint, item, name) for item in value)


def _mapping(hints: tuple[Any, ...], value: Any, name: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"'{name}' must hold keys, not {_kind(value)}")
    key_hint, item_hint = hints
    return {
        _convert(key_hint, key, name): _convert(item_hint, item, f"{name}.{key}")
        for key, item in value.items()
    }


def _scalar(hint: Any, value: Any, name: str) -> Any:
    if hint is Any:
        return value
    if hint is float:
        return _float(value, name)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise InputError(f"'{name}' must be {_NAMES.get(hint, str(hint))}, not {_kind(value)}")


def _float(value: Any, name: str) -> float:
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise InputError(f"'{name}' must be a number, not {_kind(value)}")


_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    str: "text",
    Path: "a path",
}


def _kind(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, list | tuple):
        return "a list"
    return f"'{value}'"

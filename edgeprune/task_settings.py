"""Making a task from settings given as text, with the accepted ones named when they are wrong."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from edgeprune.errors import EdgepruneError, TaskError
from edgeprune.suggest import suggestion

if TYPE_CHECKING:
    from edgeprune.task import Task

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def parse_settings(pairs: list[str]) -> dict[str, str]:
    """``key=value`` texts as a mapping.

    Raises:
        TaskError: no ``=``, an empty key, or a key given twice.
    """
    settings: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise TaskError(f"setting '{pair}' is not key=value; write --set model=FOLDER")
        if key in settings:
            raise TaskError(f"setting '{key}' is given twice; keep one")
        settings[key] = value.strip()
    return settings


def construct(name: str, task_class: type, settings: Mapping[str, str]) -> "Task":
    """The task made with its settings, converted to the types its constructor annotates.

    Raises:
        TaskError: unknown, missing or unreadable settings, or a constructor that raises.
    """
    parameters = _parameters(task_class)
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    known = [n for n, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    for key in settings:
        if key not in known and not open_ended:
            raise TaskError(f"task '{name}' has no setting '{key}'; {suggestion(key, known)}")
    missing = [
        n for n in known if parameters[n].default is inspect.Parameter.empty and n not in settings
    ]
    if missing:
        needs = " ".join(f"--set {n}=..." for n in missing)
        raise TaskError(f"task '{name}' needs the setting '{missing[0]}'; add {needs}")
    hints = _hints(task_class)
    values = {key: _convert(name, key, text, hints.get(key)) for key, text in settings.items()}
    try:
        return task_class(**values)  # type: ignore[no-any-return]
    except EdgepruneError:
        raise
    except Exception as error:
        text = " ".join(str(error).split()) or "no message"
        raise TaskError(f"task '{name}': Task() raised {type(error).__name__}: {text}") from error


def _parameters(task_class: type) -> dict[str, inspect.Parameter]:
    if task_class.__init__ is object.__init__:  # type: ignore[misc]
        return {}
    signature = inspect.signature(task_class.__init__)  # type: ignore[misc]
    kept = list(signature.parameters.items())[1:]
    return {n: p for n, p in kept if p.kind is not inspect.Parameter.VAR_POSITIONAL}


def _hints(task_class: type) -> dict[str, Any]:
    try:
        return get_type_hints(task_class.__init__)  # type: ignore[misc]
    except (NameError, TypeError):
        return {}


def _convert(name: str, key: str, text: str, hint: Any) -> Any:
    # What may be left out is annotated ``X | None``.
    hint = next((kind for kind in get_args(hint) if kind is not type(None)), hint)
    try:
        if hint is bool:
            return _truth(text)
        if hint in (int, float):
            return hint(text)
    except ValueError as error:
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[hint]
        raise TaskError(f"task '{name}': setting '{key}' is '{text}', not {kind}") from error
    return Path(text).expanduser() if hint is Path else text


def _truth(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(text)

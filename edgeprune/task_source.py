"""Finding the class of a task, and a key that changes whenever its answers may."""

import ast
import hashlib
import importlib
import importlib.util
import json
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeprune.errors import TaskError
from edgeprune.suggest import suggestion

_BUILT_IN = Path(__file__).parent / "tasks"
# Folders are hashed by content up to this size, beyond it by names and sizes.
_CONTENT_LIMIT_BYTES = 1 << 30


def built_in_tasks() -> tuple[str, ...]:
    """Names of the tasks that come with edgeprune: one file each in ``edgeprune/tasks``."""
    files = _BUILT_IN.glob("*.py")
    return tuple(sorted(f.stem.replace("_", "-") for f in files if not f.stem.startswith("_")))


def find_task_class(name_or_path: str | Path) -> tuple[str, type, str]:
    """The name, the class ``Task`` and the source text of a task.

    Raises:
        TaskError: no such task or file, a file that cannot be imported or has no class ``Task``.
    """
    text = str(name_or_path)
    if text in built_in_tasks():
        module = importlib.import_module(f"edgeprune.tasks.{text.replace('-', '_')}")
        return text, _task_class(module, text), Path(str(module.__file__)).read_text("utf-8")
    path = Path(text).expanduser()
    if path.suffix != ".py" and not path.exists():
        raise TaskError(
            f"unknown task '{text}'; {suggestion(text, built_in_tasks())} "
            "(or give the path of a .py file)"
        )
    if not path.is_file():
        raise TaskError(f"task file {path} does not exist; give a .py file with a class Task")
    module, source = import_file(path.resolve())
    return path.stem, _task_class(module, path.stem), source


def import_file(path: Path) -> tuple[ModuleType, str]:
    """Run a Python file the user named; its neighbours can be imported by it.

    Returns:
        The module, and its source with that of the neighbours it imported.

    Raises:
        TaskError: the file cannot be read or raises while it is imported.
    """
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    module_name = f"edgeprune_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path} is not a Python file; give a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise TaskError(f"{path.name}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        text = " ".join(str(error).split())
        place = _last_line(error, str(path))
        raise TaskError(f"{path.name} raised {type(error).__name__}: {text}{place}") from error
    sources = _with_neighbours(path, {})
    return module, "\n".join(sources[file] for file in (path, *sorted(set(sources) - {path})))


def task_key(task_class: type, source: str, settings: Mapping[str, str]) -> str:
    """SHA-256 over the source, the settings and the contents of every file they name."""
    named = {}
    for name, value in sorted(settings.items()):
        path = Path(value.partition(":")[0]).expanduser()
        if value and path.exists():
            named[name] = content_key(path)
    parts = [task_class.__qualname__, source, dict(settings), named]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def content_key(path: Path) -> str:
    """SHA-256 of a file, or of a folder's names, sizes and (up to 1 GiB) contents."""
    digest = hashlib.sha256()
    if path.is_file():
        _add_file(digest, path)
        return digest.hexdigest()
    left = _CONTENT_LIMIT_BYTES
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path)}\0{size}\0".encode())
        left -= size
        if left > 0:
            _add_file(digest, file)
    return digest.hexdigest()


def user_line(error: Exception, task: Any) -> str:
    """`` (file.py, line n)`` for the last line of the task's own file in a traceback."""
    module = sys.modules.get(type(task).__module__)
    file = getattr(module, "__file__", None)
    return _last_line(error, str(file)) if file else ""


def _last_line(error: Exception, file: str) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f" ({Path(file).name}, line {frames[-1].lineno})" if frames else ""


def _task_class(module: ModuleType, name: str) -> type:
    found = getattr(module, "Task", None)
    if not isinstance(found, type):
        raise TaskError(f"task '{name}': its file has no class Task; see the task contract")
    return found


def _with_neighbours(path: Path, found: dict[Path, str]) -> dict[Path, str]:
    """Sources by path: a file, and what it imports from its own folder, and what those do.

    Read from the text, so that the answer does not depend on what was imported before.
    """
    if path not in found:
        found[path] = path.read_text(encoding="utf-8")
        for name in _imported(found[path]):
            place = path.parent.joinpath(*name.split("."))
            for file in (place.with_suffix(".py"), place / "__init__.py"):
                if file.is_file():
                    _with_neighbours(file, found)
    return found


def _imported(source: str) -> Iterator[str]:
    """Names of the modules that a source imports anywhere, and of what may be one."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return  # never run, or the import of the task would have told
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module:
                yield node.module
            prefix = f"{node.module}." if node.module else ""
            yield from (f"{prefix}{alias.name}" for alias in node.names if alias.name != "*")


def _add_file(digest: Any, path: Path) -> None:
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)

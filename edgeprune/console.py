"""What a person sees: results on stdout; messages, warnings and progress on stderr.

Colours and bars appear only on a terminal (``NO_COLOR`` is honoured). Without one, a stage prints
a line when it starts, one for what it notes before any work, one a minute, and one when it ends.
"""

import io
import json
import math
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_LINE_EVERY_S = 60.0
_LEAST_SHARE = 0.005
_FORMATTED = re.compile(r"-?\d+(\.\d+)?[x%]?")


@dataclass
class _State:
    verbose: bool = False
    errors: "Console | None" = None
    bars: "RichProgress | None" = None
    depth: int = 0


_state = _State()


def configure(*, verbose: bool = False) -> None:
    """Set what the command line chose; without a call, details are not shown."""
    _state.verbose = verbose
    _state.errors = None


def message(text: str) -> None:
    """One line for the user, on stderr."""
    _stderr().print(text, markup=False, highlight=False, soft_wrap=True)


def detail(text: str) -> None:
    """One line that only ``-v`` shows, on stderr."""
    if _state.verbose:
        _stderr().print(text, markup=False, highlight=False, soft_wrap=True, style="dim")


def warning(text: str) -> None:
    """One line about something that may surprise, on stderr."""
    _stderr().print(
        f"warning: {text}", markup=False, highlight=False, soft_wrap=True, style="yellow"
    )


def show_json(value: Any) -> None:
    """A result as indented JSON on stdout; figures that are not finite become null."""
    sys.stdout.write(json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n")


def show_text(text: str) -> None:
    """A result as plain text on stdout."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def show_table(
    columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, title: str = ""
) -> None:
    """Rows as a table on stdout; numbers are aligned right, missing values left empty.

    Args:
        columns: Keys of the rows, in order; they are the headings as well.
        rows: One mapping a row.
        title: A line above the table.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    numeric = {c: all(_is_number(row.get(c)) for row in rows) for c in columns}
    for column in columns:
        table.add_column(column, justify="right" if numeric[column] else "left")
    for row in rows:
        table.add_row(*(Text(_cell(row.get(column))) for column in columns))
    # As wide as the table is: a narrow terminal wraps lines, but no figure is cut short.
    text = io.StringIO()
    Console(file=text, width=10_000, color_system=None).print(table)
    show_text("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


@dataclass
class Progress:
    """A running stage; made by :func:`progress`."""

    title: str
    total: float | None
    done: float = 0.0
    started: float = field(default_factory=lambda: time.monotonic())
    _printed: float = field(default_factory=lambda: time.monotonic())
    _task: "TaskID | None" = None
    _noted: bool = False

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """Say that another ``amount`` of ``total`` is done; ``note`` follows the title."""
        self.update(self.done + amount, note=note)

    def update(self, done: float, *, total: float | None = None, note: str = "") -> None:
        """Say how much is done altogether, and a new total where it became known."""
        self.done = done
        self.total = total if total is not None else self.total
        title = f"{self.title} {note}" if note else self.title
        if self._task is not None and _state.bars is not None:
            _state.bars.update(self._task, completed=done, total=self.total, description=title)
        elif note and not done and not self._noted:
            self._noted = True
            message(f"{title} ...")
        elif time.monotonic() - self._printed >= _LINE_EVERY_S:
            self._printed = time.monotonic()
            message(f"{title}: {self._share()}")

    def _share(self) -> str:
        elapsed = time.monotonic() - self.started
        # What hardly began says nothing of how long it takes.
        if not self.total or self.done < _LEAST_SHARE * self.total:
            return f"running for {duration(elapsed)}"
        left = elapsed * max(self.total - self.done, 0.0) / self.done
        return f"{self.done / self.total:.0%}, about {duration(left)} left"


@contextmanager
def progress(title: str, total: float | None = None) -> Iterator[Progress]:
    """Show a stage while it runs, with the time left; may be nested.

    Args:
        title: What is being done.
        total: How much there is to do, in any unit; None when it is not known.
    """
    bar = Progress(title, total)
    console = _stderr()
    if console.is_terminal and not console.is_dumb_terminal:
        with _bars(console) as bars:
            bar._task = bars.add_task(title, total=total)
            try:
                yield bar
            finally:
                bars.remove_task(bar._task)
        return
    message(f"{title} ...")
    yield bar
    message(f"{title}: done in {duration(time.monotonic() - bar.started)}")


def duration(seconds: float) -> str:
    """Seconds as people read them: ``8 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def _bars(console: "Console") -> Iterator["RichProgress"]:
    """The one live display that all nested stages share."""
    from rich.progress import (
        BarColumn,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    if _state.bars is None:
        _state.bars = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        _state.bars.start()
    _state.depth += 1
    try:
        yield _state.bars
    finally:
        _state.depth -= 1
        if _state.depth == 0:
            _state.bars.stop()
            _state.bars = None


def _stderr() -> "Console":
    if _state.bars is not None:  # it prints above the bars
        return _state.bars.console
    if _state.errors is None or _state.errors.file is not sys.stderr:
        from rich.console import Console

        _state.errors = Console(file=sys.stderr, highlight=False)
    return _state.errors


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _is_number(value: Any) -> bool:
    """Whether a cell reads as a number, perhaps formatted already: ``3.210``, ``2.1x``, empty."""
    if isinstance(value, str):
        return bool(_FORMATTED.fullmatch(value))
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)

"""Runs one case in a process of its own, so that none can hang or end the table."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

Row = dict[str, Any]


def run_isolated(work: Callable[[Callable[[Row], None]], None], limit_s: float) -> tuple[Row, str]:
    """What ``work`` reported, and why it did not come to its end, if so.

    ``work`` is given a function that adds columns to the row; what it had added counts even if it
    is stopped at the time limit or crashes. The process is forked: imports are paid once.
    """
    context = multiprocessing.get_context("fork")
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(work, writing), daemon=True)
    process.start()
    writing.close()
    row: Row = {}
    reason = _collect(reading, row, limit_s)
    if process.is_alive() and reason:
        process.kill()
    process.join()
    if not reason and process.exitcode:
        reason = f"the process ended with {process.exitcode}"
    return row, reason


def _child(work: Callable[[Callable[[Row], None]], None], writing: Connection) -> None:
    work(writing.send)
    writing.close()


def _collect(reading: Connection, row: Row, limit_s: float) -> str:
    """Gather reports until the process closes its end; why that took too long, or nothing."""
    import time

    end = time.monotonic() + limit_s
    while reading.poll(max(0.0, end - time.monotonic())):
        try:
            row.update(reading.recv())
        except EOFError:
            return ""
    return f"not finished after {limit_s:.0f} s"

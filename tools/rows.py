"""What every tool does with its rows: a table on stdout, and JSON into a file when asked."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.atomic import atomic_path
from edgeprune.console import show_table


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """The ``--json FILE`` option that all tools share."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")


def error_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message, for a row."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def show_rows(
    rows: Sequence[Mapping[str, Any]],
    json_file: Path | None,
    summary: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Print rows as a table, and their summary as another; the file takes both, a key a column."""
    for table in filter(None, (rows, summary)):
        show_table(list(dict.fromkeys(key for row in table for key in row)), table)
    if json_file is not None:
        write_rows([*rows, *summary], json_file)


def write_rows(rows: Sequence[Mapping[str, Any]], json_file: Path) -> None:
    """Write rows as JSON, in place of what the file held."""
    with atomic_path(json_file) as partial:
        partial.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")

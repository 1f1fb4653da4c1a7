"""What every tool does with its rows: a table on stdout, and JSON into a file when asked."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.console import show_table


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """The ``--json FILE`` option that all tools share."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")


def show_rows(
    rows: Sequence[Mapping[str, Any]],
    json_file: Path | None,
    summary: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Print rows as a table, and their summary as another; the file takes both, a key a column."""
    for table in filter(None, (rows, summary)):
        show_table(list(dict.fromkeys(key for row in table for key in row)), table)
    if json_file is not None:
        written = json.dumps([*rows, *summary], indent=1)
        json_file.write_text(written + "\n", encoding="utf-8")

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


def show_rows(rows: Sequence[Mapping[str, Any]], json_file: Path | None) -> None:
    """Print rows as a table, and write them to the file with a key for each column."""
    show_table(list(dict.fromkeys(key for row in rows for key in row)), rows)
    if json_file is not None:
        json_file.write_text(json.dumps(list(rows), indent=1) + "\n", encoding="utf-8")

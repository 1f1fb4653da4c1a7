"""Reading lines and tab-separated columns from text files, gzipped or not."""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

from edgeprune.errors import TaskError


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file that are not blank, without their ends.

    Raises:
        TaskError: the file is missing, damaged or not text.
    """
    return [line for line in _raw_lines(path) if line.strip()]


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[int, tuple[str, ...]]]:
    """Chosen columns of a tab-separated file with a header, each row with its line number.

    Raises:
        TaskError: no such file, a column missing from the header, a row of another width.
    """
    lines = _raw_lines(path)
    header = lines[0].split("\t") if lines else []
    for column in columns:
        if column not in header:
            raise TaskError(
                f"{path} has no column '{column}'; its first line must name "
                f"{', '.join(columns)}, separated by tabs"
            )
    places = [header.index(column) for column in columns]
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            raise TaskError(
                f"{path}, line {number}: {len(cells)} columns, the header has {len(header)}"
            )
        rows.append((number, tuple(cells[place] for place in places)))
    return rows


def _raw_lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        # Only newlines end a line: texts may hold other separators that Python splits at.
        lines = data.decode("utf-8").split("\n")
    except OSError as error:
        raise TaskError(f"cannot read {path}: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise TaskError(f"{path} is not a whole gzip file") from error
    except UnicodeDecodeError as error:
        raise TaskError(f"{path} is not UTF-8 text") from error
    return [line.removesuffix("\r") for line in lines]

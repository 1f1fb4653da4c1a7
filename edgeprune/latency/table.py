"""Latency tables: append-only JSON lines, a header with the fingerprint, one record a measurement.

Every record is one ``write`` to a file opened for appending, so processes may share a table
without a lock, and a process that dies loses at most the record it was writing. A record carries
its fingerprint's key and a checksum; what is torn at the end is dropped, what is damaged
elsewhere is reported, and what was measured under another fingerprint is not seen at all.
"""

import json
import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import TableError
from edgeprune.latency.fingerprint import Fingerprint

FORMAT = 1

Record = dict[str, Any]


class Table:
    """The measurements of one device fingerprint.

    Records are found by kind (``layers``, ``whole``, ``alone``, ``design``, ``refused``) and
    signature, under which there may be several: repetitions of one measurement.

    Attributes:
        problems: What was left out of the files because it is damaged, a line each.
    """

    def __init__(self, path: Path, fingerprint: Fingerprint, shipped: Sequence[Path] = ()) -> None:
        """Open a table for reading and appending.

        Args:
            path: The table's own file; made at the first record.
            fingerprint: Only records of this fingerprint are seen and written.
            shipped: Further tables that are read and never written.
        """
        self.path = path
        self.fingerprint = fingerprint
        self.problems: list[str] = []
        self._records: dict[tuple[str, str], list[Record]] = {}
        self._has_header = False
        for source in (*shipped, path):
            self._read(source, own=source == path)

    def all(self, kind: str, signature: str) -> list[Record]:
        """Every record of a signature, oldest first."""
        return list(self._records.get((kind, signature), ()))

    def latest(self, kind: str, signature: str) -> Record | None:
        """The newest record of a signature, or ``None``."""
        records = self._records.get((kind, signature))
        return records[-1] if records else None

    def signatures(self, kind: str) -> list[str]:
        """All signatures of a kind, in the order they were first measured."""
        return [signature for what, signature in self._records if what == kind]

    def __len__(self) -> int:
        return sum(map(len, self._records.values()))

    def append(self, kind: str, signature: str, figures: Record) -> None:
        """Write one measurement to the file, now.

        Raises:
            TableError: The file cannot be written.
        """
        record = {
            "kind": kind,
            "signature": signature,
            "fingerprint": self.fingerprint.key,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **figures,
        }
        if not self._has_header:
            header = {
                "edgeprune_table": FORMAT,
                "fingerprint": self.fingerprint.key,
                "facts": self.fingerprint.facts,
            }
            self._write(header)
            self._has_header = True
        self._write(record)
        self._records.setdefault((kind, signature), []).append(record)

    def _write(self, entry: Record) -> None:
        line = json.dumps({**entry, "crc": _checksum(entry)}, separators=(",", ":")).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                # A predecessor may have died in the middle of a line.
                lead = b"" if _ends_whole(file) else b"\n"
                written = os.write(file, lead + line + b"\n")
                if written != len(lead) + len(line) + 1:
                    raise TableError(f"{self.path}: the disk took only part of a record")
            finally:
                os.close(file)
        except OSError as error:
            raise TableError(f"cannot write {self.path}: {error.strerror}") from error

    def _read(self, path: Path, *, own: bool) -> None:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise TableError(f"cannot read {path}: {error.strerror}") from error
        *lines, rest = content.split(b"\n")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            entry = _parse(line)
            if entry is None:
                self.problems.append(f"{path}:{number}: damaged record left out")
            else:
                self._take(entry, path, own=own)
        # Without its newline the last line may be half of a longer record: never used.
        if rest.strip():
            self.problems.append(f"{path}: the last record is torn and was left out")

    def _take(self, entry: Record, path: Path, *, own: bool) -> None:
        version = entry.get("edgeprune_table")
        if version is not None and version != FORMAT:
            raise TableError(
                f"{path} is a table of format {version}, this edgeprune reads {FORMAT}: "
                "update edgeprune or move the file away"
            )
        if entry.get("fingerprint") != self.fingerprint.key:
            return
        if version is not None:
            self._has_header = self._has_header or own
            return
        kind, signature = entry.get("kind"), entry.get("signature")
        if isinstance(kind, str) and isinstance(signature, str):
            self._records.setdefault((kind, signature), []).append(entry)


def _checksum(entry: Record) -> int:
    return zlib.crc32(json.dumps(entry, sort_keys=True, separators=(",", ":")).encode())


def _parse(line: bytes) -> Record | None:
    """The entry of one line, or ``None`` when it is not exactly what was written."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict):
        return None
    crc = entry.pop("crc", None)
    return entry if crc == _checksum(entry) else None


def _ends_whole(file: int) -> bool:
    size = os.fstat(file).st_size
    return size == 0 or os.pread(file, 1, size - 1) == b"\n"

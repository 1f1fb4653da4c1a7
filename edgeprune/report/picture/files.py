"""The picture as a file: SVG, or a page that shows on hovering what goes together."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.atomic import atomic_write_text
from edgeprune.errors import InputError

if TYPE_CHECKING:
    from edgeprune.graph.network import Network

SUFFIXES = (".svg", ".html")


def check_name(path: Path) -> None:
    """Refuse a file that would be no picture.

    Raises:
        InputError: The name does not end like one.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--out {path} is no picture; give a file that ends in .svg or .html")


def write_picture(path: Path, network: "Network", record: Mapping[str, Any]) -> None:
    """Draw a network into a file.

    Raises:
        InputError: The name ends in neither ``.svg`` nor ``.html``.
        WorkspaceError: The file cannot be written.
    """
    check_name(path)
    from edgeprune.report.picture.network_picture import draw_network

    picture = draw_network(network, record)
    if path.suffix.lower() == ".html":
        picture = _page(picture, record)
    atomic_write_text(path, picture)


def _page(picture: str, record: Mapping[str, Any]) -> str:
    """A page around a picture; hovering over a structure fades all that is not part of it."""
    rules = [
        f"svg:has(.h{n}:hover) :is(.box,.line,.entry):not(.s{n}){{opacity:.15}}"
        for n in range(1, len(record["structures"]) + 1)
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(record['task'])}: what can be pruned</title>"
        f"<style>body{{margin:0}}{''.join(rules)}</style></head><body>\n"
        f"{picture}</body></html>\n"
    )

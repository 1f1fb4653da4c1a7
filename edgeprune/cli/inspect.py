"""``edgeprune inspect``: what of a task's model can be pruned, and what cannot and why."""

from pathlib import Path
from typing import Annotated

import typer

from edgeprune import console
from edgeprune.cli import options
from edgeprune.cli.defaults import needed, read_defaults
from edgeprune.errors import StructureError
from edgeprune.task_settings import parse_settings

HELP = """Show what of a model can be pruned: structures, the layers each ties, what froze and why.

\b
Examples:
  edgeprune inspect --task digits
  edgeprune inspect --task mytask.py --out network.html
  edgeprune inspect --task digits --structure 'blocks.0:*'
  edgeprune inspect --task digits --device x86

Nothing is measured unless --device is given; then the time of each structure is shown as well, and
what the device's latency table lacks is measured, as edgeprune profile does.
"""


def inspect(
    task: options.Task = None,
    settings: options.Settings = None,
    device: options.Device = None,
    structure: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATTERN", help="Show these structures in full; * stands for any."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the network: a file that ends in .svg or .html."),
    ] = None,
    recipe: options.Recipe = None,
    as_json: options.AsJson = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Parse, look, print, and draw where a file was named."""
    from edgeprune.report.picture.files import check_name, write_picture

    defaults = read_defaults()
    given_task = needed(task, defaults.task, "--task", "NAME")
    given_settings = defaults.settings(parse_settings(settings or []))
    if out is not None:
        check_name(out)

    from edgeprune.report.inspection import show_inspection, show_structures
    from edgeprune.stages.inspect import inspect_task

    found = inspect_task(given_task, given_settings, device, recipe or defaults.recipe or "default")
    record = found.record(structure)
    if out is not None:
        write_picture(out, found.network, found.record())
        console.message(f"drew {out}")
    if as_json:
        console.show_json(record)
    elif structure is not None:
        show_structures(record)
    else:
        show_inspection(record)
    if found.obstacle is not None:
        raise StructureError(found.obstacle)

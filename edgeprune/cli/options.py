"""Options that several subcommands share."""

from typing import Annotated

import typer

from edgeprune import console
from edgeprune.locate import shipped_names
from edgeprune.task_source import built_in_tasks


def _targets(incomplete: str) -> list[str]:
    return [name for name in shipped_names("targets") if name.startswith(incomplete)]


def _recipes(incomplete: str) -> list[str]:
    return [name for name in shipped_names("recipes") if name.startswith(incomplete)]


def _tasks(incomplete: str) -> list[str]:
    return [name for name in built_in_tasks() if name.startswith(incomplete)]


def _set_verbose(value: bool) -> bool:
    if value:
        console.configure(verbose=True)
    return value


def _set_debug(context: typer.Context, value: bool) -> bool:
    if value:
        context.find_root().obj["debug"] = True
    return value


Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME|FILE",
        help="Target: a name of targets/ or a YAML file.",
        autocompletion=_targets,
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME|FILE",
        help="Task: a built-in name or a Python file with a class Task.",
        autocompletion=_tasks,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the task; may be repeated."),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        help="Recipe: a name of recipes/ or a YAML file.",
        autocompletion=_recipes,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Say more on stderr.", callback=_set_verbose),
]
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of a failure.", callback=_set_debug),
]

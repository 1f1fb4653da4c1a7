"""The command line: subcommands, and how failures become one line and an exit code."""

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from edgeprune import console
from edgeprune.cli import bench, compress, doctor, inspect, profile, report
from edgeprune.errors import EdgepruneError

INTERRUPTED = 130

app = typer.Typer(
    name="edgeprune",
    help="""Prune a torch model to a latency, measured on the device itself.

    \b
    Examples:
      edgeprune compress --task digits --device x86 --target-speedup 2x
      edgeprune compress --task mytask.py --device x86 --target-latency 10ms --recovery 25
      edgeprune report runs/digits-x86
      edgeprune doctor
    """,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

app.command("doctor", help=doctor.HELP, short_help="Say what works on this machine.")(doctor.doctor)
app.command("inspect", help=inspect.HELP, short_help="Show what of a model can be pruned.")(
    inspect.inspect
)
app.command("profile", help=profile.HELP, short_help="Measure a network into a latency table.")(
    profile.profile
)
app.command("compress", help=compress.HELP, short_help="Prune a task's model to a latency.")(
    compress.compress
)
app.command("bench", help=bench.HELP, short_help="Time artifacts against each other.")(bench.bench)
app.command("report", help=report.HELP, short_help="Show a run as a table.")(report.report)


def _show_version(value: bool) -> None:
    if value:
        from edgeprune.locate import version

        console.show_text(f"edgeprune {version()}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Options before the subcommand; their callbacks do the work."""


def main() -> None:
    """Entry point of the ``edgeprune`` program."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code.

    0 every target met, 1 a fault of edgeprune, 2 bad input, 3 a target not met, 4 device or
    runtime not available, 130 interrupted.
    """
    state: dict[str, Any] = {"debug": False}
    try:
        code = app(
            list(arguments) or ["--help"], prog_name="edgeprune", standalone_mode=False, obj=state
        )
        sys.stdout.flush()
        # Typer turns an interrupt into this code and says nothing.
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except EdgepruneError as error:
        return _fail(str(error), error.exit_code, state)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted; the same command goes on where it stopped", INTERRUPTED, state)
    except BrokenPipeError:
        # The reader of our output left; a second failure while closing stdout must not show.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _fail("the disk is full; free some space and run again to resume", 2, state)
        return _unexpected(error, state)
    except MemoryError:
        return _fail("out of memory; use fewer calibration samples in the recipe", 1, state)
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is None:
            return _unexpected(error, state)
        return _fail(f"{usage()} (see edgeprune --help)", 2, state)


def _unexpected(error: Exception, state: dict[str, Any]) -> int:
    text = " ".join(str(error).split())[:300]
    hint = "" if state["debug"] else "; --debug shows where"
    return _fail(f"internal fault, {type(error).__name__}: {text}{hint}", 1, state)


def _fail(text: str, code: int, state: dict[str, Any]) -> int:
    if state["debug"]:
        traceback.print_exc()
    print(f"edgeprune: {' '.join(text.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()

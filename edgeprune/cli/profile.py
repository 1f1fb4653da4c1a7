"""``edgeprune profile``: measure a task's network on a device into its latency table."""

from edgeprune import console
from edgeprune.cli import options
from edgeprune.cli.defaults import needed, read_defaults
from edgeprune.task_settings import parse_settings

HELP = """Measure a network on a device into its latency table, and say how fast it could get.

\b
Examples:
  edgeprune profile --device x86 --task digits
  edgeprune profile --device x86 --task mytask.py --json

Profiling again measures only what is missing; compress does it by itself.
"""


def profile(
    device: options.Device = None,
    task: options.Task = None,
    settings: options.Settings = None,
    recipe: options.Recipe = None,
    as_json: options.AsJson = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Parse, measure, show the range."""
    defaults = read_defaults()
    given_device = needed(device, defaults.device, "--device", "x86")
    given_task = needed(task, defaults.task, "--task", "NAME")
    given_settings = defaults.settings(parse_settings(settings or []))

    from edgeprune.stages.profile import profile_task

    found = profile_task(
        given_task, given_device, recipe or defaults.recipe or "default", given_settings
    )
    if as_json:
        console.show_json(found)
        return
    console.show_text(
        f"dense {found['dense_ms']:.3f} ms, reachable down to {found['fastest_ms']:.3f} ms "
        f"({found['most_speedup']:.2f}x) by {found['structures']} structures"
    )
    console.show_text(f"table {found['table']} holds {found['records']} records")

"""``edgeprune profile``: measure a network, or common layers, into a device's latency table."""

from edgeprune import console
from edgeprune.cli import options
from edgeprune.cli.defaults import needed, read_defaults
from edgeprune.task_settings import parse_settings

HELP = """Measure a network on a device into its latency table, and say how fast it could get.

Without a task, measure common layers over common shapes.

\b
Examples:
  edgeprune profile --device x86 --task digits
  edgeprune profile --device x86 --task mytask.py --json
  edgeprune profile --device x86

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
    given_task = task or defaults.task
    if not given_task:
        _sweep(given_device, as_json)
        return
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


def _sweep(device: str, as_json: bool) -> None:
    """Measure what the table lacks of the common layers, and show them all."""
    from edgeprune.devices import device as find_device
    from edgeprune.latency.fingerprint import take
    from edgeprune.latency.reference_sweep import measure_sweep
    from edgeprune.latency.store import open_table
    from edgeprune.target import load_target

    target = load_target(device)
    machine = find_device(target.transport)
    table = open_table(take(machine, target))
    with console.progress(f"measuring common layers on {target.name}") as bar:
        rows = measure_sweep(
            target,
            machine,
            table,
            progress=lambda done, total, note: bar.update(done, total=total, note=note),
        )
    if as_json:
        console.show_json({"table": str(table.path), "layers": rows})
        return
    console.show_table(tuple(rows[0]), rows)
    console.show_text(f"table {table.path} holds {len(table)} records")

"""``edgeprune doctor``: what works on this machine, and how to mend what does not."""

from edgeprune import console
from edgeprune.cli import options

HELP = """Say what works on this machine: libraries, processor, devices, cache, disk.

\b
Examples:
  edgeprune doctor
  edgeprune doctor --json
"""


def doctor(
    as_json: options.AsJson = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Run all checks and show one line each."""
    from edgeprune.doctor import check_all

    checks = check_all()
    if as_json:
        console.show_json([check.to_json() for check in checks])
        return
    console.show_table(
        ("state", "what", "found"),
        [{"state": check.state, "what": check.name, "found": check.found} for check in checks],
    )
    fixes = [check.fix for check in checks if check.fix]
    if fixes:
        console.show_text("\nto mend:\n" + "\n".join(f"  {fix}" for fix in fixes))

"""Where latency tables lie: the user's own by fingerprint, and those shipped with edgeprune."""

from edgeprune import console, locate
from edgeprune.latency.fingerprint import Fingerprint
from edgeprune.latency.table import Table


def open_table(fingerprint: Fingerprint) -> Table:
    """The user's table of this device, with the shipped tables behind it.

    Damaged records are left out, and the user is told.

    Raises:
        TableError: A file cannot be read, or is of another format.
    """
    path = locate.cache_folder("profiles") / f"{fingerprint.key}.jsonl"
    shipped = sorted(locate.shipped_folder("profiles").glob("*.jsonl"))
    table = Table(path, fingerprint, shipped)
    if table.problems:
        first, *others = table.problems
        more = f", and {len(others)} more" if others else ""
        console.warning(f"{first}{more}; what is missing is measured again")
    return table

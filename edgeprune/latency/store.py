"""Where latency tables lie: the user's own by fingerprint, and those shipped with edgeprune."""

from edgeprune import locate
from edgeprune.latency.fingerprint import Fingerprint
from edgeprune.latency.table import Table


def open_table(fingerprint: Fingerprint) -> Table:
    """The user's table of this device, with the shipped tables behind it.

    Raises:
        TableError: A file cannot be read, or is of another format.
    """
    path = locate.cache_folder("profiles") / f"{fingerprint.key}.jsonl"
    shipped = sorted(locate.shipped_folder("profiles").glob("*.jsonl"))
    return Table(path, fingerprint, shipped)

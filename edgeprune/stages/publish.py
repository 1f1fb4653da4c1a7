"""Put what a stage made where the user looks for it."""

import os
import shutil
from pathlib import Path

from edgeprune.atomic import atomic_path


def publish(made: Path, folder: Path) -> None:
    """Every file of ``made`` under its name in ``folder``, whole whenever the run dies.

    The stage keeps its own, so that a run with other settings in the same folder, and back again,
    never leaves one stage's figures beside another's files. Linked where the file system can,
    which takes no room.

    Raises:
        WorkspaceError: The disk is full, or the folder cannot be written.
    """
    for source in sorted(made.iterdir()):
        target = folder / source.name
        if target.exists() and target.samefile(source):
            continue
        with atomic_path(target) as partial:
            try:
                os.link(source, partial)
            except OSError:
                shutil.copyfile(source, partial)

"""Every error a user can meet, with the exit code the command line gives it.

A message is one line: what is wrong, the value seen, and what to do about it.
Errors of libraries are translated at the border and kept as the cause.
"""


class EdgepruneError(Exception):
    """Base of all errors that edgeprune raises on purpose."""

    exit_code = 1


class InputError(EdgepruneError):
    """The user's task, files, options or data cannot be used as they are."""

    exit_code = 2


class TaskError(InputError):
    """The task file, its class, or what its methods return breaks the task contract."""


class CaptureError(InputError):
    """The model cannot be exported to a graph."""


class StructureError(InputError):
    """A structure was named that does not exist, or it cannot be pruned as asked."""


class TableError(InputError):
    """A latency table cannot be used: corrupt, foreign, or of another device."""


class WorkspaceError(InputError):
    """The run folder belongs to something else, is in use, or cannot be written."""


class TargetMissed(EdgepruneError):
    """A latency target was not met; the best artifact and its figures have been written."""

    exit_code = 3


class InfeasibleTarget(TargetMissed):
    """No alternative is fast enough for the target; nothing was trained.

    Attributes:
        fastest_ms: The fastest time that can be reached, where it is known.
    """

    def __init__(self, message: str, *, fastest_ms: float | None = None) -> None:
        super().__init__(message)
        self.fastest_ms = fastest_ms


class UnavailableError(EdgepruneError):
    """A device or a runtime is not available here."""

    exit_code = 4

"""Look at what of a task's model can be pruned, without a device or with measured times."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any

from edgeprune import console
from edgeprune.errors import StructureError
from edgeprune.graph.network import Network
from edgeprune.latency.dense_times import DenseTimes, dense_times
from edgeprune.recipe import load_recipe
from edgeprune.stages.inspection_record import inspection_record
from edgeprune.stages.profile import measured
from edgeprune.stages.subject import analysed, nothing_prunable
from edgeprune.suggest import suggestion
from edgeprune.task import load_task

# Batches that are looked at for sizes that vary.
_FEW = 8


@dataclass(frozen=True, eq=False)
class Inspection:
    """What can be pruned of a task's model.

    Attributes:
        task: Name of the task.
        network: Captured, with its structures.
        kinds: Kinds of structures that the recipe offers, or ``all``.
        device: Name of the target that was measured on, if any.
        times: Where the dense model's time goes there.
    """

    task: str
    network: Network
    kinds: tuple[str, ...]
    device: str | None = None
    times: DenseTimes | None = None

    @property
    def obstacle(self) -> str | None:
        """One line on why nothing can be removed; None where something can."""
        return None if self.network.structures else nothing_prunable(self.network.frozen)

    def record(self, pattern: str | None = None) -> dict[str, Any]:
        """Everything as JSON values.

        Args:
            pattern: A name or a pattern with ``*`` and ``?`` of the structures to hold; by
                default all.

        Raises:
            StructureError: The pattern means no structure.
        """
        names = list(self.network.structures) if pattern is None else self._named(pattern)
        record = inspection_record(self.network, names, self.kinds, self.times)
        return {"task": self.task, "device": self.device, **record}

    def _named(self, pattern: str) -> list[str]:
        found = [name for name in self.network.structures if fnmatchcase(name, pattern)]
        if not found:
            hint = suggestion(pattern, self.network.structures)
            raise StructureError(f"there is no structure '{pattern}'; {hint}")
        return found


def inspect_task(
    task_name: str,
    settings: Mapping[str, str],
    device_name: str | None = None,
    recipe_name: str = "default",
) -> Inspection:
    """Capture a task's model and find its structures; with a device, what each takes there.

    Args:
        task_name: Built-in name, or path of a task file.
        settings: Arguments of the task's constructor, as text.
        device_name: A target, on which is measured what its table lacks; None measures nothing.
        recipe_name: Says which structures and formats are offered.

    Raises:
        InputError: The task, target or recipe cannot be used, or the model cannot be captured.
        StructureError: A device was named, and nothing of the model can be removed.
        UnavailableError: The device or its runtime is not there.
    """
    recipe = load_recipe(recipe_name)
    kinds: tuple[str, ...] = recipe.search.kinds
    if device_name is not None:
        found = measured(task_name, device_name, recipe_name, settings)
        network = found.subject.network
        times = dense_times(network, found.table, found.latency.dense_ms)
        return Inspection(found.run.task.name, network, kinds, found.run.target.name, times)
    task = load_task(task_name, settings)
    with console.progress("reading the model", 3) as bar:
        model, examples = task.model(), task.example_inputs()
        few = islice(task.batches(), _FEW)
        network = analysed(model, examples, few, bar, recipe.structures.head_width)
    return Inspection(task.name, network, kinds)

"""What the user brings: a model, example inputs, unlabelled batches and a quality number.

A task is a built-in name or a Python file with one class ``Task``. Whatever it returns is checked
here, at the border, so that the rest of edgeprune can rely on it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgeprune.errors import EdgepruneError, TaskError
from edgeprune.task_settings import construct
from edgeprune.task_source import find_task_class, task_key, user_line

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    Predict = Callable[[tuple[np.ndarray[Any, Any], ...]], tuple[np.ndarray[Any, Any], ...]]


class Task(Protocol):
    """The contract of a task.

    Attributes:
        quality_name: What ``quality`` measures, such as ``accuracy``.
    """

    quality_name: str

    def model(self) -> "nn.Module":
        """The dense model in eval mode, float32, with its own weights loaded."""

    def example_inputs(self) -> tuple["Tensor", ...]:
        """Tensors at the deployed shape and batch."""

    def batches(self) -> Iterable[tuple["Tensor", ...]]:
        """Unlabelled input tensors for calibration and recovery; iterable again and again."""

    def quality(self, predict: "Predict") -> float:
        """Higher is better; ``predict`` maps numpy inputs at the deployed shape to outputs."""


MEMBERS = ("model", "example_inputs", "batches", "quality", "quality_name")


@dataclass(frozen=True, eq=False)
class LoadedTask:
    """A task whose every answer is checked.

    Attributes:
        name: Built-in name, or the file's stem.
        key: SHA-256 of the task's source, its settings and the files they name.
        settings: The settings as given.
    """

    name: str
    key: str
    settings: Mapping[str, str]
    _task: Task

    @property
    def quality_name(self) -> str:
        """What ``quality`` measures."""
        return self._task.quality_name

    def model(self) -> "nn.Module":
        """The dense model, in eval mode.

        Raises:
            TaskError: not a module, not float32, or weights that are not finite.
        """
        import torch

        model = self._call("model")
        if not isinstance(model, torch.nn.Module):
            raise self._broken("model", f"returned {_type(model)}, not a torch.nn.Module")
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_floating_point():
                continue
            if tensor.dtype != torch.float32:
                raise self._broken("model", f"has '{name}' in {_dtype(tensor)}; use float32")
            # Infinity in a buffer may be a mask.
            learned = isinstance(tensor, torch.nn.Parameter)
            if not bool(torch.isfinite(tensor).all() if learned else ~tensor.isnan().any()):
                raise self._broken("model", f"has values in '{name}' that are not finite")
        return model.eval()

    def example_inputs(self) -> tuple["Tensor", ...]:
        """Tensors at the deployed shape and batch.

        Raises:
            TaskError: not a tuple of finite tensors.
        """
        return self._tensors("example_inputs", self._call("example_inputs"), "")

    def batches(self) -> Iterator[tuple["Tensor", ...]]:
        """Unlabelled batches, each checked against the example inputs.

        Raises:
            TaskError: there is none, or one disagrees with the example inputs.
        """
        examples = self.example_inputs()
        batches = self._call("batches")
        try:
            iterator = iter(batches)
        except TypeError as error:
            raise self._broken("batches", f"returned {_type(batches)}, not an iterable") from error
        index = 0
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                break
            except Exception as error:
                raise self._raised("batches", error) from error
            yield self._agreeing(batch, examples, index)
            index += 1
        if index == 0:
            raise self._broken("batches", "gave no batch; calibration needs at least one")

    def quality(self, predict: "Predict") -> float:
        """The task's quality with a given predictor.

        Raises:
            TaskError: it raised, or did not return a finite number. What ``predict`` raises is
                passed on as it is.
        """
        guard = _Guard(predict)
        try:
            value: Any = self._task.quality(guard)
        except Exception as error:
            if guard.error is not None:
                raise guard.error from error
            raise self._raised("quality", error) from error
        number = _number(value)
        if number is None:
            raise self._broken("quality", f"returned {_type(value)}, not a number")
        if not math.isfinite(number):
            raise self._broken("quality", f"returned {number}; it must be a finite number")
        return number

    def _call(self, member: str) -> Any:
        try:
            return getattr(self._task, member)()
        except Exception as error:
            raise self._raised(member, error) from error

    def _tensors(self, member: str, value: Any, which: str) -> tuple["Tensor", ...]:
        import torch

        if not isinstance(value, tuple | list):
            raise self._broken(member, f"{which}is {_type(value)}, not a tuple of tensors")
        if not value:
            raise self._broken(member, f"{which}is an empty tuple; the model needs an input")
        for position, tensor in enumerate(value):
            if not isinstance(tensor, torch.Tensor):
                raise self._broken(member, f"{which}holds {_type(tensor)} at {position}, no tensor")
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise self._broken(member, f"{which}has values at {position} that are not finite")
        return tuple(value)

    def _agreeing(
        self, batch: Any, examples: tuple["Tensor", ...], index: int
    ) -> tuple["Tensor", ...]:
        tensors = self._tensors("batches", batch, f"batch {index} ")
        if len(tensors) != len(examples):
            raise self._broken(
                "batches",
                f"batch {index} holds {len(tensors)} tensors, example_inputs() {len(examples)}",
            )
        for position, (tensor, example) in enumerate(zip(tensors, examples, strict=True)):
            if tensor.dtype != example.dtype or not _shapes_agree(tensor, example):
                raise self._broken(
                    "batches",
                    f"batch {index}, tensor {position}: {_signature(tensor)} disagrees with "
                    f"{_signature(example)} of example_inputs()",
                )
        return tensors

    def _broken(self, member: str, problem: str) -> TaskError:
        return TaskError(f"task '{self.name}': {member}() {problem}")

    def _raised(self, member: str, error: Exception) -> EdgepruneError:
        if isinstance(error, EdgepruneError):
            return error
        text = " ".join(str(error).split()) or "no message"
        place = user_line(error, self._task)
        return self._broken(member, f"raised {type(error).__name__}: {text[:300]}{place}")


def load_task(name_or_path: str | Path, settings: Mapping[str, str] | None = None) -> LoadedTask:
    """Find a task, make it with its settings, and check that it has what the contract asks.

    Args:
        name_or_path: A built-in name, or the path of a Python file with one class ``Task``.
        settings: Arguments of the task's constructor, as text; they are converted to the types
            that it annotates.

    Raises:
        TaskError: no such task, a broken file, wrong settings, a missing member.
    """
    given = dict(settings or {})
    name, task_class, source = find_task_class(name_or_path)
    for member in MEMBERS:
        if not hasattr(task_class, member) and member != "quality_name":
            raise TaskError(f"task '{name}': class Task has no {member}(); see the task contract")
    task = construct(name, task_class, given)
    if not isinstance(getattr(task, "quality_name", None), str):
        raise TaskError(f"task '{name}': class Task has no text quality_name, such as 'accuracy'")
    return LoadedTask(name, task_key(task_class, source, given), given, task)


class _Guard:
    """Calls ``predict`` and remembers what it raised, to tell its faults from the task's."""

    def __init__(self, predict: "Predict") -> None:
        self._predict = predict
        self.error: Exception | None = None

    def __call__(
        self, inputs: tuple["np.ndarray[Any, Any]", ...]
    ) -> tuple["np.ndarray[Any, Any]", ...]:
        try:
            return self._predict(inputs)
        except Exception as error:
            self.error = error
            raise


def _shapes_agree(tensor: "Tensor", example: "Tensor") -> bool:
    """Equal rank, and equal sizes where they mean features.

    The batch may always differ; so may all sizes of token ids and masks, and the steps of a
    sequence of feature vectors (dimension 1 of 3).
    """
    if tensor.dim() != example.dim() or 0 in tensor.shape:
        return False
    if not tensor.is_floating_point():
        return True
    first = 2 if tensor.dim() == 3 else 1
    return tensor.shape[first:] == example.shape[first:]


def _signature(tensor: "Tensor") -> str:
    return f"{_dtype(tensor)} {tuple(tensor.shape)}"


def _dtype(tensor: "Tensor") -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _type(value: Any) -> str:
    return f"'{type(value).__name__}'"


def _number(value: Any) -> float | None:
    """The number that a scalar, 0-dimensional array or tensor holds, else None."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, bool) or not isinstance(value, Real) else float(value)

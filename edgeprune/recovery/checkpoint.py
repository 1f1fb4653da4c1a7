"""Checkpoints: one file, whole or absent, that holds all a run needs to go on bit for bit.

Tensors (weights, statistics, the optimiser's moments) and the rest as JSON travel in one
safetensors file, so a kill between two writes cannot part them. Nothing random has a state: order
and augmentation are functions of the seed and the position.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, fx

from edgeprune.atomic import atomic_path
from edgeprune.recovery.data import Position
from edgeprune.recovery.schedules import Pace
from edgeprune.recovery.working import Precision

_FILE = "checkpoint.safetensors"
# Goes up with every change of State; a checkpoint of another version is not taken up.
_VERSION = 2
_MODEL, _OPTIMISER = "model.", "optimiser."

Optimisers = Sequence[torch.optim.Optimizer]


@dataclass
class State:
    """Where a run is, besides its tensors.

    Attributes:
        precision: Arithmetic that was chosen.
        pace: Shares of the run by step.
        step: Steps done.
        position: The next batch.
        elapsed_s: Seconds spent, over all processes.
        planned_s: ``elapsed_s`` at the latest planning of the pace.
        evaluations: How often the held-back samples were looked at.
        best_loss: Least held-back loss so far; ``best_step`` is its step and ``best_fidelity``
            the fidelity there.
        gained_loss: Held-back loss at the latest gain worth the name; ``stale`` evaluations ago.
        rate_scale: Factor on the learning rate, lowered when training diverges.
        setbacks: How often it diverged.
        loss_sum: Sum of the losses since the latest evaluation.
        stopped: Why the run ended; empty while it has not.
        notes: What was chosen and what happened.
        history: One entry an evaluation.
        answers: Whether the teacher's outputs were computed once for all samples.
    """

    precision: Precision
    pace: Pace
    step: int = 0
    position: Position = field(default_factory=Position)
    elapsed_s: float = 0.0
    planned_s: float = 0.0
    evaluations: int = 0
    best_fidelity: float = float("-inf")
    best_loss: float = float("inf")
    best_step: int = 0
    gained_loss: float = float("inf")
    stale: int = 0
    rate_scale: float = 1.0
    setbacks: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    stopped: str = ""
    notes: list[str] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    answers: bool = False


@dataclass(frozen=True, eq=False)
class Saved:
    """What a checkpoint holds."""

    state: State
    tensors: dict[str, Tensor]

    @torch.no_grad()
    def restore(self, module: fx.GraphModule, optimisers: Optimisers) -> None:
        """Put weights, statistics and moments back."""
        _restore(module, _below(_MODEL, self.tensors))
        for number, optimiser in enumerate(optimisers):
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            moments: dict[int, dict[str, Any]] = {}
            for key, value in _below(f"{_OPTIMISER}{number}.", self.tensors).items():
                index, name = key.split(".")
                moments.setdefault(int(index), {})[name] = _laid_out(value, parameters[int(index)])
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": moments, "param_groups": groups})


class Checkpoints:
    """The checkpoint and the best weights of one run in one folder.

    Args:
        folder: Where the files live; made if absent.
        identity: What the run is; a checkpoint of another run is not taken up.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder = folder
        self._identity = f"{_VERSION} {identity}"

    def save(self, state: State, module: fx.GraphModule, optimisers: Optimisers) -> None:
        """Write everything, then remove best weights that nothing refers to any more."""
        tensors = {f"{_MODEL}{name}": value for name, value in _unique_state(module).items()}
        for number, optimiser in enumerate(optimisers):
            for index, moments in optimiser.state_dict()["state"].items():
                for name, value in moments.items():
                    key = f"{_OPTIMISER}{number}.{index}.{name}"
                    tensors[key] = torch.as_tensor(value)
        header = {"identity": self._identity, "state": json.dumps(asdict(state))}
        _write(self._folder / _FILE, tensors, header)
        for path in self._folder.glob("best-*.safetensors"):
            if path != self._best(state.best_step):
                path.unlink(missing_ok=True)

    def read(self) -> "Saved | None":
        """The latest checkpoint of this run, or None."""
        path = self._folder / _FILE
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
            tensors = load_file(path)
        except (SafetensorError, OSError):
            return None
        if header.get("identity") != self._identity:
            return None
        return Saved(_state_from(json.loads(header["state"])), tensors)

    def save_best(self, step: int, module: fx.GraphModule) -> None:
        """Keep the weights of a step as the best ones."""
        _write(self._best(step), _unique_state(module), {"identity": self._identity})

    def load_best(self, step: int, module: fx.GraphModule) -> None:
        """Put the best weights back."""
        _restore(module, load_file(self._best(step)))

    def _best(self, step: int) -> Path:
        return self._folder / f"best-{step:07d}.safetensors"


def identity_of(module: fx.GraphModule, *choices: Any) -> str:
    """SHA-256 of the starting weights and of every choice that the result depends on."""
    digest = hashlib.sha256(repr(choices).encode())
    for name, tensor in _unique_state(module).items():
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    with atomic_path(path) as partial:
        save_file({name: value.contiguous() for name, value in tensors.items()}, partial, header)


def _unique_state(module: fx.GraphModule) -> dict[str, Tensor]:
    """Parameters and buffers; of tied ones the first name."""
    seen: set[int] = set()
    state: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        if id(_owner(module, name)) not in seen:
            seen.add(id(_owner(module, name)))
            state[name] = tensor.detach()
    return state


def _owner(module: fx.GraphModule, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part)
    return value


@torch.no_grad()
def _restore(module: fx.GraphModule, tensors: dict[str, Tensor]) -> None:
    state = module.state_dict()
    for name, value in tensors.items():
        state[name].copy_(value)


def _laid_out(moment: Tensor, parameter: Tensor) -> Tensor | int:
    """The moment in the memory order of its parameter: the fused optimiser goes by memory."""
    if moment.dim() == 0 and not moment.is_floating_point():
        return int(moment)
    if moment.shape != parameter.shape:
        return moment
    return torch.empty_like(parameter).copy_(moment)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }


def _state_from(values: dict[str, Any]) -> State:
    values["pace"] = Pace(**values["pace"])
    values["position"] = Position(**values["position"])
    return State(**values)

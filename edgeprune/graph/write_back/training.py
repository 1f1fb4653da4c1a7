"""Whether a module that was written back still trains, as far as it did before."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from edgeprune.graph.running import flat_tensors, quiet
from edgeprune.graph.write_back.check import TOLERANCE, explain, relative_difference
from edgeprune.graph.write_back.state import Snapshot

# Whose results in train mode depend on chance or on the other examples of a batch.
_KEPT_IN_EVAL = (_NormBase, _DropoutNd, nn.MultiheadAttention, nn.RNNBase)
# How many parameters a note names.
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """What came of running a module forwards and backwards in train mode.

    Attributes:
        outputs: All tensors that it gave.
        parameters: Names of the parameters that can be trained.
        reached: Those of them that got a gradient.
        failure: Why it did not come to its end; empty if it did.
    """

    outputs: tuple[Tensor, ...] = ()
    parameters: frozenset[str] = frozenset()
    reached: frozenset[str] = frozenset()
    failure: str = ""


def training_run(model: nn.Module, inputs: Sequence[Tensor]) -> TrainingRun:
    """Run a module once in train mode, without torch's dropout and batch statistics.

    The module is as it was afterwards, with its buffers, its gradients and torch's random numbers.
    """
    snapshot = Snapshot(model)
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        with quiet(), torch.random.fork_rng(devices=[]), torch.enable_grad():
            return _run(model, inputs)
    except Exception as error:  # the user's code may raise anything
        return TrainingRun(failure=explain(model, error))
    finally:
        snapshot.restore()
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def _run(model: nn.Module, inputs: Sequence[Tensor]) -> TrainingRun:
    model.train()
    for module in model.modules():
        module.training = not isinstance(module, _KEPT_IN_EVAL)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    found = flat_tensors(model(*(x.clone().to(device) for x in inputs)))
    losses = [y.abs().square().mean() for y in found if y.requires_grad]
    reached: set[str] = set()
    if losses and parameters:
        total = torch.stack([loss.double() for loss in losses]).sum()
        gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        reached = {n for n, g in zip(parameters, gradients, strict=True) if g is not None}
    results = tuple(y.detach().cpu() for y in found)
    return TrainingRun(results, frozenset(parameters), frozenset(reached))


def training_notes(
    before: TrainingRun, after: TrainingRun, dense: Sequence[Tensor], shrunk: Sequence[Tensor]
) -> list[str]:
    """What of training does not go on as it did; nothing where it does.

    Outputs are compared only where the dense module gives in train mode what it gives in eval
    mode: others have branches or random numbers of their own.

    Args:
        before: The dense module's run.
        after: That of the module that was written back.
        dense: What the dense graph gives in eval mode, at the same inputs.
        shrunk: The same of the shrunk graph.
    """
    if before.failure:
        return []
    if after.failure:
        return [f"in train mode the module {after.failure}"]
    notes = []
    lost = sorted((before.reached & after.parameters) - after.reached)
    if lost:
        shown = ", ".join(lost[:_SHOWN]) + (", ..." if len(lost) > _SHOWN else "")
        notes.append(f"in train mode no gradient reaches {shown} any more")
    compared = relative_difference(before.outputs, dense) <= TOLERANCE
    if compared and relative_difference(after.outputs, shrunk) > TOLERANCE:
        notes.append("in train mode the module gives something else than in eval mode")
    return notes

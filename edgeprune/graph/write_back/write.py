"""Write a shrunk network back into the user's own module."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from edgeprune.errors import StructureError
from edgeprune.graph.network import Keep, Network
from edgeprune.graph.parametrizations import bake_parametrizations
from edgeprune.graph.running import outputs
from edgeprune.graph.write_back.attention import free_heads
from edgeprune.graph.write_back.check import FAILS, Answers
from edgeprune.graph.write_back.difference import first_difference
from edgeprune.graph.write_back.own import (
    candidates,
    changed_arguments,
    changed_sizes,
    module_path,
    ways_to_set,
)
from edgeprune.graph.write_back.sizes import Attributes, Sizes
from edgeprune.graph.write_back.standard import standard_sizes
from edgeprune.graph.write_back.state import Snapshot, find_tensor, set_attributes, set_tensors
from edgeprune.graph.write_back.training import training_notes, training_run

# What stands for a structure that is empty: few modules run on nothing.
_STAND_IN = (0,)
# How many lines of the user's code a message names.
_LINES = 3


def write_back(
    model: nn.Module, network: Network, keep: Keep, shrunk: fx.GraphModule | None = None
) -> Sizes:
    """Give the user's own module the sizes and weights of a shrunk network, in place.

    Parameters and buffers are new ones, tied where they were tied: make the optimiser afterwards.
    Size attributes of torch's modules follow. If the module's forward then does not give what the
    graph gives, at two inputs within 1e-4 of the output's scale, attributes of the user's classes
    that are sizes which changed (``num_heads``) are tried. Weights that parametrizations compute
    become plain parameters; one unit of zeros stands for a structure that was taken out whole. The
    notes tell what of training in train mode does not go on as it did.

    Args:
        model: The module that was captured, or one built alike.
        network: The analysed capture.
        keep: Which units of each structure stay, as for ``network.shrink``.
        shrunk: What ``network.shrink(keep)`` gave, with the weights to write, trained perhaps;
            None for the captured ones.

    Returns:
        The sizes, which ``resize`` gives to a freshly built module.

    Raises:
        StructureError: The module's own forward cannot run at these sizes; it names the module and
            the line, and the module is as it was, bit for bit.
    """
    if shrunk is None:
        shrunk = network.shrink(keep)
    snapshot = Snapshot(model)
    try:
        return _write(model, network, keep, shrunk)
    except BaseException:
        snapshot.restore()
        raise


def _write(model: nn.Module, network: Network, keep: Keep, shrunk: fx.GraphModule) -> Sizes:
    notes = [*bake_parametrizations(model), *_unread_note(model, network)]
    inputs = network.captured.example_inputs
    before = training_run(model, inputs)
    emptied = [name for name in keep if not len(keep[name])]
    notes += [f"{name}: taken out whole; one unit of zeros stands for it" for name in emptied]
    standing = {**keep, **dict.fromkeys(emptied, _STAND_IN)}
    graph = network.shrink(standing).graph if emptied else shrunk.graph
    dense, left = network.captured.module.state_dict(), shrunk.state_dict()
    new = {
        name: left[name]
        if name in left and not emptied
        else _with_stand_ins(name, value, network, (standing, keep), emptied, left.get(name))
        for name, value in dense.items()
    }
    written = set_tensors(model, new)
    modules = _changed_standard_sizes(model, graph)
    free_heads(model, modules)
    set_attributes(model, modules)
    own = _own_sizes(model, network, shrunk, graph)
    in_eval = (outputs(module, inputs) for module in (network.captured.module, shrunk))
    notes += training_notes(before, training_run(model, inputs), *in_eval)
    return Sizes(
        modules=modules,
        own={path: dict(values) for path, values in own.items()},
        tensors={n: tuple(new[n].shape) for n in written if new[n].shape != dense[n].shape},
        notes=tuple(notes),
    )


def _with_stand_ins(
    name: str,
    value: Tensor,
    network: Network,
    keeps: tuple[Keep, Keep],
    emptied: Sequence[str],
    left: Tensor | None,
) -> Tensor:
    """A tensor at its new size, where what consumes the units that stand in for none is zero.

    Args:
        value: The whole tensor.
        keeps: The units that stay with the stand-ins, and without.
        left: What the shrunk graph has of it, if anything.
    """
    there, without = (network.survivors(name, keep) for keep in keeps)
    for dim, positions in enumerate(there):
        value = value.index_select(dim, torch.from_numpy(positions).to(value.device))
    value = value.clone()
    for slot in (slot for n in emptied for slot in network.structures[n].inputs()):
        if slot.tensor == name:
            zero = np.flatnonzero(slot.unit[there[slot.dim]] >= 0)
            value.index_fill_(slot.dim, torch.from_numpy(zero).to(value.device), 0)
    if left is not None:
        also = zip(there, without, strict=True)
        value[np.ix_(*(np.flatnonzero(np.isin(a, b)) for a, b in also))] = left.to(value)
    return value


def _changed_standard_sizes(model: nn.Module, graph: fx.Graph) -> dict[str, dict[str, Any]]:
    calls: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        if node.op == "call_function":
            calls[module_path(node)].append(node)
    changed: dict[str, dict[str, Any]] = {}
    for path, module in model.named_modules():
        found = standard_sizes(module, calls[path])
        new = {name: value for name, value in found.items() if getattr(module, name, None) != value}
        if new:
            changed[path] = new
    return changed


def _own_sizes(
    model: nn.Module, network: Network, shrunk: fx.GraphModule, graph: fx.Graph
) -> Attributes:
    """Attributes of the user's classes, set, with which the module gives what the graph gives.

    Raises:
        StructureError: There are none.
    """
    answers = Answers.of(shrunk, network.captured.example_inputs)
    complaint = answers.complaint(model)
    if not complaint:
        return {}
    captured = network.captured.module.graph
    complaints = []
    for changes in (changed_arguments, changed_sizes):
        groups = candidates(model, changes(captured, graph))
        for number, attributes in enumerate(ways_to_set(groups)):
            before = set_attributes(model, attributes)
            found = answers.complaint(model)
            if not found:
                return attributes
            if number == 0:  # the best candidates
                complaints.append(found + _where(model, shrunk, network))
            set_attributes(model, before)
    complaints = complaints or [complaint + _where(model, shrunk, network)]
    furthest = min(complaints, key=lambda text: text.startswith(FAILS))
    furthest += _unused(model, network, furthest)
    raise StructureError(_refusal(model, captured, shrunk.graph, furthest))


def _where(model: nn.Module, shrunk: fx.GraphModule, network: Network) -> str:
    path = first_difference(model, shrunk, network.captured.example_inputs)
    return f", first in {path} ({type(model.get_submodule(path)).__name__})" if path else ""


def _refusal(model: nn.Module, captured: fx.Graph, shrunk: fx.Graph, complaint: str) -> str:
    lines = _computed_otherwise(captured, shrunk)
    why = f"; the graph counts the units that stay at {', '.join(lines)}" if lines else ""
    return (
        f"{type(model).__name__} cannot be written back: at these sizes its own forward "
        f"{complaint}{why}; the graph module is the product"
    )


def _computed_otherwise(captured: fx.Graph, shrunk: fx.Graph) -> list[str]:
    """Lines of the user's code for which the shrunk graph has other operators or constants."""
    before = {node.name: node.op for node in captured.nodes}
    found: dict[str, None] = {}
    for node in shrunk.nodes:
        if before.get(node.name) != node.op:
            sources = (reader.meta.get("source") for reader in (node, *node.users))
            if source := next(filter(None, sources), None):
                found[str(source)] = None
    return list(found)[:_LINES]


def _unused(model: nn.Module, network: Network, complaint: str) -> str:
    """A remedy, where a module fails of which inference needs nothing."""
    paths = {name.rpartition(".")[0] for name in _unread(model, network)}
    if any(complaint.startswith(f"{FAILS} in {path} (") for path in paths):
        return " (nothing that it gives is used, so that it was not shrunk: leave out that call)"
    return ""


def _unread(model: nn.Module, network: Network) -> list[str]:
    """Names of the parameters that inference does not read."""
    read = {id(find_tensor(model, name)) for name in network.captured.module.state_dict()}
    return [name for name, p in model.named_parameters() if id(p) not in read and p.dim() > 0]


def _unread_note(model: nn.Module, network: Network) -> list[str]:
    """A note on parameters that may not fit any more."""
    unread = _unread(model, network)
    if not unread:
        return []
    shown = ", ".join(unread[:3]) + (", ..." if len(unread) > 3 else "")
    return [f"not read at inference and left as they are: {shown}"]

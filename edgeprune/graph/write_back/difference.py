"""Which module of the user's is the first that gives something else than the graph."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgeprune.graph.running import flat_tensors, outputs
from edgeprune.graph.write_back.check import TOLERANCE, relative_difference
from edgeprune.graph.write_back.own import module_path, parents


def first_difference(model: nn.Module, graph: fx.GraphModule, inputs: Sequence[Tensor]) -> str:
    """Path of the first module whose result differs, if it can be told; else an empty string.

    Modules that are called several times, and those that return something else than their last
    operator does, are passed over.
    """
    recorder = _Recorder(graph)
    with torch.no_grad():
        recorder.run(*(x.clone() for x in inputs))
    found: list[str] = []
    handles = []

    def compare(path: str) -> Any:
        def hook(module: nn.Module, given: Any, result: Any) -> None:
            have = flat_tensors(result)[:1]
            want = [recorder.last[path]]
            same_shape = bool(have) and have[0].shape == want[0].shape
            if same_shape and relative_difference([have[0].cpu()], want) > TOLERANCE:
                found.append(path)

        return hook

    for path, module in model.named_modules():
        if path in recorder.last and path not in recorder.repeated:
            handles.append(module.register_forward_hook(compare(path)))
    try:
        outputs(model, inputs)
    except Exception:  # the user's code may raise anything, and where it does is told elsewhere
        return ""
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps what the last operator of every module gave.

    Attributes:
        last: By module path.
        repeated: Modules that are called more than once.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.last: dict[str, Tensor] = {}
        self.repeated: set[str] = set()

    def run_node(self, n: fx.Node) -> Any:
        """The node's result, which is kept for the modules that it belongs to."""
        result = super().run_node(n)
        path = module_path(n)
        if "@" in str(n.meta.get("module_path", "")):
            self.repeated.add(path)
        if isinstance(result, Tensor) and n.op == "call_function":
            for around in (path, *parents(path)):
                self.last[around] = result
        return result

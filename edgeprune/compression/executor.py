"""Run a captured graph node by node over a whole calibration set at once.

Sequential methods need every batch at layer *k* before layer *k + 1* changes. The executor
keeps, for each live node, the list of its values (one entry a batch) and drops a value after
its last use, so memory is bounded by the widest cut through the graph, not by its depth.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

Values = list[Any]
Environment = dict[fx.Node, Values]
Hook = Callable[[fx.Node, Environment], None]


class Executor:
    """Executes ``module`` over ``batches``; parameters are read at the moment of use.

    Args:
        module: A captured or shrunk graph (positional tensors in, flat tuple out).
        batches: Tuples of input tensors, one tuple a batch.
        override: Parameters (by qualified name) to use in place of the module's own.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        batches: Sequence[tuple[Tensor, ...]],
        override: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.module = module
        self.batches = batches
        self.override = dict(override or {})
        # By layer, what its input passes through first, such as a rounding to int8.
        self.rounding: dict[str, Callable[[Tensor], Tensor]] = {}
        # By router, the experts that it must not choose: their logits are minus infinity.
        self.barred: dict[str, Tensor] = {}
        self.nodes = [node for node in module.graph.nodes if node.op != "get_attr"]
        self.position = {node: index for index, node in enumerate(self.nodes)}
        self._last_use = {
            node: max((self.position[user] for user in node.users), default=-1)
            for node in self.nodes
        }

    def parameter(self, name: str) -> Tensor:
        """The parameter or buffer that the graph reads under ``name``."""
        if name in self.override:
            return self.override[name]
        value: Any = self.module
        for part in name.split("."):
            value = getattr(value, part)
        return value  # type: ignore[no-any-return]

    @torch.no_grad()
    def advance(
        self,
        environment: Environment,
        start: int = 0,
        stop: int | None = None,
        before: Hook | None = None,
        after: Hook | None = None,
    ) -> None:
        """Run nodes ``[start, stop)`` of the graph, updating ``environment`` in place.

        ``before`` sees each node with its inputs ready, ``after`` with its values ready.
        """
        for index in range(start, len(self.nodes) if stop is None else stop):
            node = self.nodes[index]
            if before is not None:
                before(node, environment)
            environment[node] = self._values(node, environment)
            if after is not None:
                after(node, environment)
            self._release(node, index, environment)

    def outputs(self, environment: Environment) -> list[tuple[Tensor, ...]]:
        """What the module returns for each batch, once every node has run."""
        output = self.nodes[-1]
        return [tuple(value) for value in environment[output]]

    def run(
        self, before: Hook | None = None, after: Hook | None = None
    ) -> list[tuple[Tensor, ...]]:
        """Run the whole graph and return the outputs of each batch."""
        environment: Environment = {}
        self.advance(environment, before=before, after=after)
        return self.outputs(environment)

    def arguments(self, node: fx.Node, environment: Environment, batch: int) -> tuple[Any, ...]:
        """The positional arguments of ``node`` for one batch."""
        return fx.map_arg(node.args, lambda n: self._value(n, environment, batch))

    def input_values(self, node: fx.Node, environment: Environment, argument: int = 0) -> Values:
        """The values of one argument of ``node``, a list over batches."""
        source = node.args[argument]
        if not isinstance(source, fx.Node):
            raise TypeError(f"argument {argument} of {node.name} is not a value of the graph")
        return [self._value(source, environment, index) for index in range(len(self.batches))]

    def _value(self, node: fx.Node, environment: Environment, batch: int) -> Any:
        if node.op == "get_attr":
            return self.parameter(str(node.target))
        return environment[node][batch]

    def _values(self, node: fx.Node, environment: Environment) -> Values:
        if node.op == "placeholder":
            slot = [n for n in self.nodes if n.op == "placeholder"].index(node)
            return [batch[slot] for batch in self.batches]
        values: Values = []
        for index in range(len(self.batches)):
            args = self.arguments(node, environment, index)
            if node.name in self.rounding:
                args = (self.rounding[node.name](args[0]), *args[1:])
            if node.op == "output":
                values.append(args[0])
                continue
            value = self._call(node, args, self._keywords(node, environment, index))
            if node.name in self.barred:
                value = value.index_fill(-1, self.barred[node.name], float("-inf"))
            values.append(value)
        return values

    def _keywords(self, node: fx.Node, environment: Environment, batch: int) -> Any:
        return fx.map_arg(node.kwargs, lambda n: self._value(n, environment, batch))

    def _call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node.op == "call_module":
            return self.module.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        raise TypeError(f"unexpected node {node.op} {node.name} in a captured graph")

    def _release(self, node: fx.Node, index: int, environment: Environment) -> None:
        for source in node.all_input_nodes:
            if source.op != "get_attr" and self._last_use[source] <= index:
                environment.pop(source, None)
        if self._last_use[node] < 0 and node.op != "output":
            environment.pop(node, None)

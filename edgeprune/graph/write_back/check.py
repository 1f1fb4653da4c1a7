"""Whether a module gives the outputs that it should, and where and why it does not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from edgeprune.atomic import atomic_path
from edgeprune.errors import InputError
from edgeprune.graph.running import first_line, line_in_users_code, outputs

TOLERANCE = 1e-4
# How a complaint begins where a forward did not come to its end.
FAILS = "fails"
_SEED = 0
_LEAST_SCALE = 1e-9


@dataclass(frozen=True, eq=False)
class Answers:
    """Inputs, and the outputs that belong to them.

    Attributes:
        pairs: Inputs with outputs, once or several times.
    """

    pairs: tuple[tuple[tuple[Tensor, ...], tuple[Tensor, ...]], ...]

    @classmethod
    def of(cls, graph: fx.GraphModule, example_inputs: Sequence[Tensor]) -> "Answers":
        """What a graph gives at the example inputs and at others of their kind."""
        tries = (tuple(example_inputs), other_inputs(example_inputs))
        return cls(tuple((inputs, tuple(outputs(graph, inputs))) for inputs in tries))

    def complaint(self, model: nn.Module) -> str:
        """Why a module does not give these outputs, within 1e-4 of their scale; empty if it does.

        Where there are several inputs and the outputs hardly react to them, down to a tenth of
        their scale is asked for: a large bias must not hide a difference. Names the module and
        the line of the user's code where its forward fails.
        """
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        scales = self._scales()
        for inputs, wanted in self.pairs:
            try:
                found = outputs(model, [x.to(device) for x in inputs])
            except Exception as error:  # the user's code may raise anything
                return explain(model, error)
            off = relative_difference([y.cpu() for y in found], wanted, scales)
            if off == float("inf"):
                return "gives outputs of other shapes than the graph"
            if off > TOLERANCE:
                return f"gives outputs that are off by {off:.1e} of their scale"
        return ""

    def _scales(self) -> list[float]:
        """Of every output, between a tenth of its largest value and all of it, its reaction."""
        (_, first), (_, last) = self.pairs[0], self.pairs[-1]
        largest = [max(_largest(a), _largest(b)) for a, b in zip(first, last, strict=True)]
        if len(self.pairs) == 1:
            return largest
        reactions = [_largest(a.double() - b.double()) for a, b in zip(first, last, strict=True)]
        pairs = zip(reactions, largest, strict=True)
        return [min(max(reaction, scale / 10), scale) for reaction, scale in pairs]

    def save(self, path: Path | str) -> None:
        """Write the last inputs whose outputs are finite, with those outputs, as safetensors."""
        from safetensors.torch import save_file

        finite = [
            pair for pair in self.pairs if all(bool(torch.isfinite(y).all()) for y in pair[1])
        ]
        inputs, wanted = (finite or self.pairs)[-1]
        tensors = {f"input.{i}": x.detach().clone().contiguous() for i, x in enumerate(inputs)}
        tensors |= {f"output.{i}": y.detach().clone().contiguous() for i, y in enumerate(wanted)}
        with atomic_path(Path(path)) as partial:
            save_file(tensors, partial)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], path: Path | str) -> "Answers":
        """What ``save`` wrote to ``path``.

        Raises:
            InputError: The tensors are not such.
        """
        inputs, wanted = _numbered(tensors, "input"), _numbered(tensors, "output")
        if not inputs or not wanted or len(inputs) + len(wanted) != len(tensors):
            raise InputError(f"{path} does not hold inputs and outputs; run compress again")
        return cls(((inputs, wanted),))


def other_inputs(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Other inputs of the same kind: noise of the same scale, numbers in another order.

    What is never negative stays so, and floats that are all zeros and ones are only turned around.
    """
    generator = torch.Generator().manual_seed(_SEED)
    found = []
    for x in inputs:
        if not x.is_floating_point():
            order = torch.randperm(x.numel(), generator=generator)
            found.append(x.flatten()[order].reshape(x.shape))
        elif x.numel() > 1 and bool(x.any()) and bool(((x == 0) | (x == 1)).all()):
            found.append(x.flip(list(range(x.dim()))))
        else:
            scale = float(x.std()) if x.numel() > 1 else 0.0
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype) * (scale or 1.0)
            found.append(noise.abs() if bool(x.any()) and bool((x >= 0).all()) else noise)
    return tuple(found)


def relative_difference(
    have: Sequence[Tensor], want: Sequence[Tensor], scales: Sequence[float] | None = None
) -> float:
    """Largest difference over the outputs, as a share of each output's scale; inf on shapes.

    Entries that are not finite have to be so on both sides. Without ``scales`` an output's largest
    value is its scale.
    """
    if len(have) != len(want):
        return float("inf")
    worst = 0.0
    for a, b, scale in zip(have, want, scales or map(_largest, want), strict=True):
        finite = torch.isfinite(b)
        if a.shape != b.shape or not torch.equal(torch.isfinite(a), finite):
            return float("inf")
        difference = a[finite].double() - b[finite].double()
        worst = max(worst, _largest(difference) / max(scale, _LEAST_SCALE))
    return worst


def _largest(value: Tensor) -> float:
    """The largest finite absolute value, 0 where there is none."""
    finite = value[torch.isfinite(value)]
    return float(finite.double().abs().max()) if finite.numel() else 0.0


def explain(model: nn.Module, error: Exception) -> str:
    """The innermost module that was running, the line of the user's code, and what it said."""
    names = {id(module): name for name, module in model.named_modules()}
    inner, trace = "", error.__traceback__
    while trace is not None:
        running = trace.tb_frame.f_locals.get("self")
        if id(running) in names:
            inner = f"{names[id(running)] or 'the model'} ({type(running).__name__})"
        trace = trace.tb_next
    line = line_in_users_code(error)
    return f"{FAILS} in {inner}{f' at {line}' if line else ''}: {first_line(error)}"


def _numbered(tensors: Mapping[str, Tensor], kind: str) -> tuple[Tensor, ...]:
    count = sum(name.startswith(f"{kind}.") for name in tensors)
    found = [tensors.get(f"{kind}.{index}") for index in range(count)]
    return tuple(value for value in found if value is not None)

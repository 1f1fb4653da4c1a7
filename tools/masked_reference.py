"""The independent side of the invariant: the user's own module with removed weights set to zero.

Nothing here comes from the rewriter. Structures only say which entries of which named tensors are
gone; those are zeroed in a copy of the module, and the module runs as its author wrote it. Where
a normalisation takes statistics over features, they are taken over the survivors, which are told
by the zeros of the normalisation's own scale, or of its input where it has none.

A router's row is not zeroed but its logit is minus infinity, so that a removed expert is never
chosen. Zeros would be a logit like any other.
"""

import copy
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy in which parametrised weights (weight_norm) are ordinary parameters."""
    model = copy.deepcopy(model)
    for module in model.modules():
        names = list(getattr(module, "parametrizations", {}))
        values = {name: getattr(module, name).detach().clone() for name in names}
        if names:
            # Copies share their generated class: leave it alone and give this one its plain class.
            del module._modules["parametrizations"]
            module.__class__ = type(module).__bases__[0]
        for name, value in values.items():
            module.register_parameter(name, nn.Parameter(value))
    return model


def zero_removed(
    model: nn.Module, structures: Mapping[str, Any], keep: Mapping[str, Sequence[int]]
) -> int:
    """Zero every entry that belongs to a removed unit, in place; returns how many there are."""
    count = 0
    tell(model, (slot.tensor for s in structures.values() for slot in s.slots))
    with torch.no_grad():
        for name, units in keep.items():
            gone = sorted(set(range(structures[name].units)) - set(units))
            for slot in structures[name].slots:
                if not _has(model, slot.tensor):
                    continue  # a constant that its code makes
                places = [i for i, unit in enumerate(slot.unit.tolist()) if unit in set(gone)]
                tensor = operator.attrgetter(slot.tensor)(model)
                if structures[name].kind == "experts" and slot.role == "output":
                    _BarredExperts.note(model, slot.tensor, places)
                    count += len(places)
                    continue
                index = [slice(None)] * tensor.dim()
                index[slot.dim] = places
                tensor[tuple(index)] = 0
                count += len(places)
    return count


def tell(model: nn.Module, names: Iterable[str]) -> None:
    """Write down, where copies keep it, which parameters would be zero where anything is gone."""
    model.told = getattr(model, "told", frozenset()).union(names)  # type: ignore[assignment]


class _BarredExperts(TorchFunctionMode):
    """Routers give minus infinity for the experts that are gone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        noted = getattr(model, "barred_experts", {})
        self._gone = {id(operator.attrgetter(name)(model)): gone for name, gone in noted.items()}

    @staticmethod
    def note(model: nn.Module, router: str, gone: Sequence[int]) -> None:
        """Write down, where copies keep it, which rows of a router's weight count as gone."""
        noted = getattr(model, "barred_experts", {})
        model.barred_experts = {**noted, router: tuple(gone)}  # type: ignore[assignment]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is not F.linear:
            return result
        weight = args[1] if len(args) > 1 else (kwargs or {})["weight"]
        gone = self._gone.get(id(weight), ())
        return result.index_fill(-1, torch.tensor(gone), float("-inf")) if gone else result


def _has(model: nn.Module, tensor: str) -> bool:
    owner, _, name = tensor.rpartition(".")
    try:
        return hasattr(model.get_submodule(owner), name)
    except AttributeError:
        return False


class _SurvivorStatistics(TorchFunctionMode):
    """Normalisations compute mean and variance over the features that are left."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[_Normalisation | None] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.layer_norm or func is F.rms_norm:
            return self._last_dims(func, *args, **kwargs)
        if func is F.group_norm:
            return self._groups(*args, **kwargs)
        if func in _MEANS and self.inside and self.inside[-1] is not None:
            return self._mean(func, self.inside[-1], args, kwargs)
        if func in _MEANS and getattr(args[0], "_squares", False):
            # A root mean square outside of any module: what is gone is zero.
            return self._mean(func, _Normalisation(nn.Identity(), args[0]), args, kwargs)
        result = func(*args, **kwargs)
        if func in _SQUARES:
            result._squares = func not in _POWERS or args[1] == 2
        return result

    def _last_dims(
        self, func: Any, x: Tensor, shape: Any, weight: Any = None, *rest: Any, **kwargs: Any
    ) -> Tensor:
        weight = kwargs.pop("weight", weight)
        alive = _alive(x, weight, len(shape))
        if bool(alive.all()):
            return func(x, shape, weight, *rest, **kwargs)
        bias = None
        if func is F.layer_norm:
            bias = kwargs.get("bias", rest[0] if rest else None)
            rest = rest[1:]
        eps = kwargs.get("eps", rest[0] if rest else 1e-5)
        eps = torch.finfo(x.dtype).eps if eps is None else eps
        dims = tuple(range(-len(shape), 0))
        count = alive.sum()
        kept = torch.where(alive, x, 0.0)
        mean = kept.sum(dims, keepdim=True) / count if func is F.layer_norm else 0.0
        centred = torch.where(alive, x - mean, 0.0)
        variance = (centred**2).sum(dims, keepdim=True) / count
        y = centred / (variance + eps).sqrt()
        y = y if weight is None else y * weight
        return y if bias is None else y + bias

    def _groups(
        self, x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
    ) -> Tensor:
        alive = weight != 0 if weight is not None else (x != 0).transpose(0, 1).flatten(1).any(1)
        if bool(alive.all()):
            return F.group_norm(x, groups, weight, bias, eps)
        split = x.reshape(x.shape[0], groups, -1)
        mask = alive.reshape([1, -1] + [1] * (x.dim() - 2)).expand(x.shape)
        mask = mask.reshape(split.shape)
        count = mask.sum(-1, keepdim=True).clamp_min(1)
        mean = torch.where(mask, split, 0.0).sum(-1, keepdim=True) / count
        centred = torch.where(mask, split - mean, 0.0)
        y = centred / ((centred**2).sum(-1, keepdim=True) / count + eps).sqrt()
        y = y.reshape(x.shape)
        wide = (1, -1) + (1,) * (x.dim() - 2)
        y = y if weight is None else y * weight.reshape(wide)
        return y if bias is None else y + bias.reshape(wide)

    def _mean(self, func: Any, norm: "_Normalisation", args: Any, kwargs: Any) -> Any:
        """A hand-written normalisation: a mean or variance over features, inside its module."""
        x, given = args[0], kwargs.get("dim", args[1] if len(args) > 1 else None)
        if isinstance(given, bool) or given is None:
            return func(*args, **kwargs)
        for dim in [given] if isinstance(given, int) else list(given):
            alive = norm.alive(x.size(dim), dim % x.dim())
            if alive is not None:
                x = x.index_select(dim, torch.arange(x.size(dim))[alive])
        return func(x, *args[1:], **kwargs)


_POWERS = {torch.pow, Tensor.pow}
_SQUARES = {torch.square, Tensor.square, *_POWERS}
_MEANS = {
    *(torch.mean, Tensor.mean, torch.var, Tensor.var, torch.std, Tensor.std),
    *(torch.var_mean, torch.std_mean),
}


class _Normalisation:
    """A module that normalises, while it runs: which features of its input are left."""

    def __init__(self, module: nn.Module, x: Tensor, told: Collection[int] = ()) -> None:
        named = {"weight": getattr(module, "weight", None), **module._parameters}
        vectors = [w for w in named.values() if isinstance(w, Tensor) and _is_vector(w)]
        self._weight = vectors[0] if vectors else None
        # Zeros in a scale that takes part in structures are all that is gone.
        self._told = id(self._weight) in told
        self._x = x

    def alive(self, size: int, dim: int) -> Tensor | None:
        """Which positions of a dimension are left, None if all are.

        The zeros of the module's own scale tell, else those of its input.
        """
        if self._weight is not None:
            # As many dimensions as the input: the scale lies along one of them.
            same_rank = self._weight.dim() == self._x.dim()
            if self._weight.numel() == size and (not same_rank or self._weight.size(dim) == size):
                found = self._weight.flatten() != 0
                if not bool(found.all()):
                    return found
                if self._told:
                    return None
            elif same_rank or self._weight.numel() in self._x.shape:
                return None
        if dim >= self._x.dim() or self._x.size(dim) != size:
            return None
        # There is no scale, or the module has one that it does not use.
        found = (self._x != 0).movedim(dim, 0).flatten(1).any(1)
        return None if bool(found.all()) else found


def _is_vector(weight: Tensor) -> bool:
    return weight.numel() == max(weight.shape, default=0)


def _alive(x: Tensor, weight: Tensor | None, dims: int) -> Tensor:
    if weight is not None:
        return weight != 0
    return (x != 0).flatten(0, x.dim() - dims - 1).any(0)


def run_masked(
    model: nn.Module, inputs: Sequence[Tensor], *, survivors: bool = False
) -> list[Tensor]:
    """Outputs of a masked module; with ``survivors`` normalisations take their statistics there."""
    if not survivors:
        with torch.no_grad(), _BarredExperts(model):
            return flat(model(*(x.clone() for x in inputs)))
    mode = _SurvivorStatistics()
    told = {id(p) for name, p in model.named_parameters() if name in getattr(model, "told", ())}

    def enter(module: nn.Module, args: Any) -> None:
        named = any(word in type(module).__name__.lower() for word in ("norm", "grn"))
        normalises = named and bool(args) and isinstance(args[0], Tensor)
        mode.inside.append(_Normalisation(module, args[0], told) if normalises else None)

    def leave(module: nn.Module, *_: Any) -> None:
        mode.inside.pop()

    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))
    try:
        with torch.no_grad(), _BarredExperts(model), mode:
            return flat(model(*(x.clone() for x in inputs)))
    finally:
        for handle in handles:
            handle.remove()


def flat(value: Any) -> list[Tensor]:
    """All tensors of a result, in order."""
    leaves = torch.utils._pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def other_inputs(inputs: Sequence[Tensor], generator: torch.Generator) -> tuple[Tensor, ...]:
    """Different inputs of the same kind: noise, shuffled indices, masks with a padded end.

    What is never negative stays so, and zeros and ones (a graph, say) are only turned around.
    """
    found = []
    for x in inputs:
        if x.is_floating_point() and bool(((x == 0) | (x == 1)).all()):
            found.append(x.flip(list(range(x.dim()))))
        elif x.is_floating_point():
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            found.append(noise.abs() if bool((x >= 0).all()) else noise)
        elif x.numel() > 2 and bool(((x == 0) | (x == 1)).all()):
            masked = torch.ones_like(x)
            masked[..., -max(1, x.shape[-1] // 4) :] = 0
            found.append(masked)
        elif x.dim() > 2:  # boxes, say, stay whole
            found.append(x[:, torch.randperm(x.shape[1], generator=generator)])
        else:
            order = torch.randperm(x.numel(), generator=generator)
            found.append(x.flatten()[order].reshape(x.shape))
    return tuple(found)


def worst_difference(have: Sequence[Tensor], want: Sequence[Tensor]) -> float:
    """Largest difference over the outputs, as a share of each output's scale; inf on shapes.

    Entries that are not finite have to be so on both sides.
    """
    if len(have) != len(want):
        return float("inf")
    worst = 0.0
    for a, b in ((a.detach(), b.detach()) for a, b in zip(have, want, strict=True)):
        finite = torch.isfinite(b)
        if a.shape != b.shape or not torch.equal(torch.isfinite(a), finite):
            return float("inf")
        if finite.any():
            scale = b[finite].double().abs().max().clamp_min(1e-9)
            worst = max(worst, float((a[finite].double() - b[finite].double()).abs().max() / scale))
    return worst

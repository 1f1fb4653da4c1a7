"""What every file of this folder shares: registering a case and making its parameters generic."""

import functools
import math
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

Built = tuple[nn.Module, tuple[Tensor, ...]]
Builder = Callable[[], Built]

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def collect(cases: dict, calibrate: bool = False) -> Callable[[Builder], Builder]:
    """A decorator that registers a function returning (module, inputs) in cases under its name.

    The registered builder seeds torch, builds, makes the parameters generic and sets eval mode.
    With calibrate, layer scales and batch norm statistics are then fitted to the example inputs.
    """

    def register(build: Builder) -> Builder:
        @functools.wraps(build)
        def seeded() -> Built:
            torch.manual_seed(0)
            module, inputs = build()
            make_generic(module)
            module.eval()
            if calibrate:
                fit_to_inputs(module, inputs)
            return module, inputs

        cases[build.__name__] = {"build": seeded}
        return seeded

    return register


@torch.no_grad()
def make_generic(module: nn.Module) -> None:
    """Give each parameter values under which an error in any one channel reaches the output.

    Layer weights get a variance-preserving scale, batch norm statistics become random, and biases
    and parameters initialised to a constant (norm weights, layer scales, slopes) are jittered.
    Parameters the layers below do not own keep their initialisation unless it is constant, and
    frozen ones (requires_grad=False) are left alone. A norm's weight that is drawn around zero,
    after which inputs would hardly reach the output, is drawn around one, and tables of zeros that
    a checkpoint would fill (codebooks) are filled.
    """
    done: set[int] = set()
    for layer in module.modules():
        _fill_tables(layer)
        if isinstance(layer, _BATCH_NORM) and layer.running_mean is not None:
            layer.running_mean.normal_(0.0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
        for name, parameter in layer.named_parameters(recurse=False):
            if id(parameter) in done or not parameter.requires_grad:
                continue
            done.add(id(parameter))
            std = _weight_std(layer, name, parameter)
            if std is not None:
                parameter.normal_(0.0, std)
            elif "bias" in name:
                parameter.normal_(0.0, 0.1)
            elif name == "weight" and parameter.dim() == 1 and _around_zero(parameter):
                parameter.normal_(1.0, 0.2)
            elif parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
                size = abs(float(parameter.flatten()[0]))
                parameter.add_(torch.randn_like(parameter), alpha=0.2 * max(size, 0.5))


def _fill_tables(layer: nn.Module) -> None:
    for name, buffer in layer.named_buffers(recurse=False):
        stored = name not in layer._non_persistent_buffers_set
        if stored and buffer.is_floating_point() and buffer.dim() > 1 and not buffer.any():
            buffer.normal_()


def _around_zero(parameter: Tensor) -> bool:
    size = float(parameter.square().mean().sqrt())
    return 0 < size < 0.1 and float(parameter.min()) < 0 < float(parameter.max())


def _weight_std(layer: nn.Module, name: str, parameter: Tensor) -> float | None:
    """The scale that keeps the signal's variance through the layer; None for any other kind."""
    if parameter.dim() < 2 or "bias" in name:
        return None
    if isinstance(layer, (*_CONV, nn.Linear)):
        return math.sqrt(2 / parameter[0].numel())
    if isinstance(layer, _TRANSPOSED):
        reached = parameter.numel() / parameter.shape[1] / layer.groups
        return math.sqrt(2 * math.prod(layer.stride) / reached)
    if isinstance(layer, (nn.RNNBase, nn.MultiheadAttention)):
        return math.sqrt(1 / parameter.shape[1])
    return None


@torch.no_grad()
def fit_to_inputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Fit what make_generic drew to the inputs, so that no activation saturates or dies out.

    Convolution and linear layers get outputs of unit variance, and convolutions with a bias a mean
    of what was drawn for it. Batch norm statistics become the true ones, perturbed by those drawn
    (the variance of few positions leans on that of all channels). Where there is a single position
    (after a global pool), rows with a negative output change sign: a ReLU would hide them. A layer
    is fitted at its first call with an input beside zero.
    """
    owners = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
    seen: set[nn.Module] = set()

    def fit(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        weight = layer.weight
        if layer in seen or weight is None or owners[id(weight)] > 1 or not weight.requires_grad:
            return None
        if not bool(args[0].any()):
            return None
        seen.add(layer)
        if isinstance(layer, _BATCH_NORM):
            _fit_statistics(layer, args[0])
        else:
            _fit_layer(layer, out)
        out = layer.forward(*args)
        if out.dim() > 1 and out.numel() == out.shape[1] and not isinstance(layer, _TRANSPOSED):
            signs = torch.where(out.flatten() < 0, -1.0, 1.0)
            for parameter in layer.parameters(recurse=False):
                parameter.mul_(signs.view(-1, *[1] * (parameter.dim() - 1)))
            out = layer.forward(*args)
        return out

    layers = (*_CONV, *_TRANSPOSED, nn.Linear, *_BATCH_NORM)
    hooks = [x.register_forward_hook(fit) for x in module.modules() if isinstance(x, layers)]
    module(*inputs)
    for hook in hooks:
        hook.remove()


def _fit_statistics(layer: nn.Module, x: Tensor) -> None:
    rows = x.transpose(0, 1).flatten(1)
    positions = rows.shape[1]
    mean = rows.mean(1) if positions > 1 else rows.mean()
    own = positions / (positions + 16)
    variance = own * rows.var(1, unbiased=False) + (1 - own) * rows.var() + 1e-5
    layer.running_mean.mul_(variance.sqrt()).add_(mean)
    layer.running_var.mul_(variance)


def _fit_layer(layer: nn.Module, out: Tensor) -> None:
    if isinstance(layer, nn.Linear) or layer.bias is None or out.numel() == out.shape[1]:
        layer.weight.div_(out.square().mean().sqrt().clamp_min(1e-3))
        return
    rows = out.transpose(0, 1).flatten(1)
    mean = rows.mean(1)
    size = (rows - mean[:, None]).square().mean().sqrt().clamp_min(1e-3)
    layer.weight.div_(size)
    layer.bias.sub_((mean - layer.bias) / size)

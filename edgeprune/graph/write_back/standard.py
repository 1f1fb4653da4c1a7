"""The attributes of torch's own modules that name a size, one entry a module type.

An entry reads them off the module's tensors, which have their new shapes, and where those do not
tell (groups, modules without tensors) off the calls of the shrunk graph that compute it.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from edgeprune.graph.ops import argument, op_name, tensor_shape
from edgeprune.graph.write_back.attention import SCALE

Entry = Callable[[Any, Sequence[Node]], dict[str, Any]]
_Function = TypeVar("_Function", bound=Entry)

_ENTRIES: dict[type[nn.Module], Entry] = {}


def entry(*types: type[nn.Module]) -> Callable[[_Function], _Function]:
    """Register a function that gives the size attributes of module types and their subclasses."""

    def register(function: _Function) -> _Function:
        for kind in types:
            if kind in _ENTRIES:
                raise ValueError(f"two entries for {kind.__name__}")
            _ENTRIES[kind] = function
        return function

    return register


def standard_sizes(module: nn.Module, calls: Sequence[Node]) -> dict[str, Any]:
    """Size attributes of one of torch's modules; empty for others.

    Args:
        module: With its tensors in their new shapes.
        calls: The shrunk graph's operators that its forward consists of.
    """
    for kind in type(module).__mro__:
        if kind in _ENTRIES:
            return _ENTRIES[kind](module, calls)
    return {}


def _called(calls: Sequence[Node], *names: str) -> Node | None:
    """The first call of one of these operators."""
    return next((call for call in calls if op_name(call).startswith(names)), None)


@entry(nn.Linear)
def _linear(module: nn.Linear, calls: Sequence[Node]) -> dict[str, Any]:
    out_features, in_features = module.weight.shape
    return {"in_features": in_features, "out_features": out_features}


@entry(nn.Bilinear)
def _bilinear(module: nn.Bilinear, calls: Sequence[Node]) -> dict[str, Any]:
    out_features, first, second = module.weight.shape
    return {"in1_features": first, "in2_features": second, "out_features": out_features}


@entry(_ConvNd)
def _convolution(module: _ConvNd, calls: Sequence[Node]) -> dict[str, Any]:
    groups = _groups(module, calls)
    out_channels, per_group = module.weight.shape[:2]
    return {
        "in_channels": per_group * groups,
        "out_channels": out_channels,
        "groups": groups,
    }


@entry(_ConvTransposeNd)
def _transposed(module: _ConvTransposeNd, calls: Sequence[Node]) -> dict[str, Any]:
    groups = _groups(module, calls)
    in_channels, per_group = module.weight.shape[:2]
    return {
        "in_channels": in_channels,
        "out_channels": per_group * groups,
        "groups": groups,
    }


def _groups(module: _ConvNd, calls: Sequence[Node]) -> int:
    call = _called(calls, "conv")
    return module.groups if call is None else int(argument(call, 6, "groups", 1))


@entry(_NormBase)
def _batch_norm(module: Any, calls: Sequence[Node]) -> dict[str, Any]:
    known = module.weight if module.weight is not None else module.running_mean
    if known is not None:
        return {"num_features": known.shape[0]}
    call = _called(calls, "batch_norm", "instance_norm")
    return {} if call is None else {"num_features": tensor_shape(call)[1]}


@entry(nn.LayerNorm, nn.RMSNorm)
def _last_dims_norm(module: Any, calls: Sequence[Node]) -> dict[str, Any]:
    if module.weight is not None:
        return {"normalized_shape": tuple(module.weight.shape)}
    call = _called(calls, "layer_norm", "rms_norm")
    over = len(module.normalized_shape)
    return {} if call is None else {"normalized_shape": tensor_shape(call)[-over:]}


@entry(nn.GroupNorm)
def _group_norm(module: nn.GroupNorm, calls: Sequence[Node]) -> dict[str, Any]:
    call = _called(calls, "group_norm")
    if call is None:
        return {}
    return {"num_groups": int(argument(call, 1)), "num_channels": tensor_shape(call)[1]}


@entry(nn.Embedding, nn.EmbeddingBag)
def _embedding(module: Any, calls: Sequence[Node]) -> dict[str, Any]:
    rows, width = module.weight.shape
    return {"num_embeddings": rows, "embedding_dim": width}


@entry(nn.PReLU)
def _prelu(module: nn.PReLU, calls: Sequence[Node]) -> dict[str, Any]:
    return {"num_parameters": module.weight.shape[0]}


@entry(nn.RNNBase)
def _recurrent(module: Any, calls: Sequence[Node]) -> dict[str, Any]:
    rows, input_size = module.weight_ih_l0.shape
    found = {"input_size": input_size, "hidden_size": rows // _gates(module.mode)}
    if module.proj_size:
        found["proj_size"] = module.weight_hr_l0.shape[0]
    return found


def _gates(mode: str) -> int:
    return {"LSTM": 4, "GRU": 3}.get(mode, 1)


@entry(nn.RNNCellBase)
def _cell(module: nn.RNNCellBase, calls: Sequence[Node]) -> dict[str, Any]:
    return {"input_size": module.weight_ih.shape[1], "hidden_size": module.weight_hh.shape[1]}


@entry(nn.MultiheadAttention)
def _multihead(module: Any, calls: Sequence[Node]) -> dict[str, Any]:
    """With a scale where torch's forward cannot run: it wants heads that fill the width."""
    if module.in_proj_weight is not None:
        width = keys = values = module.in_proj_weight.shape[1]
        total = (module.in_proj_weight.shape[0] - module.out_proj.weight.shape[1]) // 2
    else:
        total, width = module.q_proj_weight.shape
        keys, values = module.k_proj_weight.shape[1], module.v_proj_weight.shape[1]
    head_dim = _size_of_a_head(calls) or module.head_dim
    found = {
        "embed_dim": width,
        "kdim": keys,
        "vdim": values,
        "num_heads": total // max(head_dim, 1),
        "head_dim": head_dim,
    }
    if head_dim != module.head_dim or {total, *module.out_proj.weight.shape} != {width}:
        found[SCALE] = getattr(module, SCALE, None) or module.head_dim**-0.5
    return found


@entry(nn.TransformerEncoder)
def _encoder(module: nn.TransformerEncoder, calls: Sequence[Node]) -> dict[str, Any]:
    """No nested tensors, which only layers take that torch computes as a whole."""
    packed = [m for m in module.modules() if isinstance(m, nn.MultiheadAttention)]
    packed = [m for m in packed if m.in_proj_weight is not None]
    shrunk = any(len(m.in_proj_weight) != 3 * m.embed_dim for m in packed)
    return {"use_nested_tensor": False} if shrunk else {}


def _size_of_a_head(calls: Sequence[Node]) -> int | None:
    """Of the queries, where they are multiplied by the keys."""
    call = _called(calls, "scaled_dot_product_attention", "bmm", "baddbmm")
    if call is None:
        return None
    query = call.args[1 if op_name(call).startswith("baddbmm") else 0]
    return tensor_shape(query)[-1] if isinstance(query, Node) else None


@entry(nn.Unflatten)
def _unflatten(module: nn.Unflatten, calls: Sequence[Node]) -> dict[str, Any]:
    if not calls or not isinstance(module.dim, int):
        return {}
    shape, old = tensor_shape(calls[-1]), tuple(module.unflattened_size)
    start = module.dim if module.dim >= 0 else module.dim + len(shape) - len(old) + 1
    new = shape[start : start + len(old)]
    return {"unflattened_size": tuple(-1 if a == -1 else b for a, b in zip(old, new, strict=True))}

"""The base models of the transformers library as small, randomly initialised test cases.

Each class is built from its own configuration with every size shrunk: names of attributes tell what
kind of size they hold, so one table of patterns serves all models, and the few values no name can
tell stand in transformers_sizes.py. Nothing is downloaded.
"""

import copy
import dataclasses
import importlib
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from generic import fit_to_inputs, make_generic
from masked_reference import other_inputs, worst_difference
from transformers_sizes import CONFIG_CLASSES, CONFIGS, INPUTS, NO_TENSOR_INPUTS, OPTIONS

WIDTH = 64
HEADS = 4
HEAD_DIM = WIDTH // HEADS
FFN = 128
VOCAB = 96
POSITIONS = 64
IMAGE = 64
PATCH = 16
GRID = IMAGE // PATCH
TOKENS = 10
FRAMES = 32
SAMPLES = 2000
MAX_LAYERS = 4
MAX_PARAMETERS = 20_000_000
LEAST_REACTION = 1e-2

# Ids the random input tokens are drawn from; configurations get their special ids outside of it.
PLAIN_TOKENS = range(12, 72)

# The auto mappings whose values are models without a task head.
MAPPINGS = (
    "MODEL_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_MAPPING_NAMES",
    "MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES",
    "MODEL_FOR_BACKBONE_MAPPING_NAMES",
)

# Parts of a model's output that are no primary result.
SIDE_OUTPUTS = re.compile(
    r"loss|.*cache.*|past_key_values|.*buckets.*|mems|(.*_)?attentions|.*router_logits|rope_deltas"
    r"|(?!last_|.*_last_)(.*_)?hidden_states?|.*_states_tuple"
)


class LeftOut(Exception):
    """A class that makes no test case; the message is the reason, in one line."""


def model_names() -> list[str]:
    """The names of all base model classes the library registers."""
    _stay_offline()
    return sorted(_model_types())


def build(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The small model of that class, in eval mode, and inputs it accepts.

    The module takes positional tensors only and returns a tuple of float tensors.
    """
    _stay_offline()
    try:
        return _build(name)
    except LeftOut:
        raise
    except Exception as error:
        raise LeftOut(_first_line(error)) from error


def _stay_offline() -> None:
    """Forbid the library all downloads; it reads this when it is first imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"


def _build(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    if name in NO_TENSOR_INPUTS:
        raise LeftOut(NO_TENSOR_INPUTS[name])
    model_class = _model_class(name)
    config = small_config(model_class, name)
    _check_size(_without_storage(model_class, config))
    torch.manual_seed(0)
    model = model_class(config)
    _check_size(model)
    make_generic(model)
    model.eval()
    return _with_inputs(model, name)


@cache
def _model_types() -> dict[str, str]:
    """The model type each base class is registered under, by the name of the class."""
    from transformers.models.auto import modeling_auto

    types: dict[str, str] = {}
    for mapping in MAPPINGS:
        for model_type, names in getattr(modeling_auto, mapping).items():
            for name in names if isinstance(names, (tuple, list)) else (names,):
                types.setdefault(name, model_type)
    return types


def _model_class(name: str) -> Any:
    import transformers

    found = getattr(transformers, name, None)
    if found is None:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        configuration = CONFIG_MAPPING[_model_types()[name]].__module__
        modeling = importlib.import_module(configuration.replace("configuration_", "modeling_"))
        found = getattr(modeling, name)
    return found


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = lines[:2] if lines and lines[0].endswith(":") else lines[:1]
    return f"{type(error).__name__}: {' '.join(told)}"


# --------------------------------------------------------------------------------------------------
# Small configurations


def _set(size: int) -> Callable[[Any], Any]:
    """A rule: the value becomes size, those of a list become small widths of their own."""

    def small(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return _channels(value)
        return size if value > 4 else value

    return small


def _cap(limit: int) -> Callable[[Any], Any]:
    """A rule: no value above the limit."""

    def capped(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(capped(one) for one in value)
        return min(value, limit)

    return capped


def _keep(value: Any) -> Any:
    return value


def _channels(value: Any) -> Any:
    """Multiples of 16 that grow with the value, equal for equal values wherever they stand."""
    if isinstance(value, (list, tuple)):
        return type(value)(_channels(one) for one in value)
    return value if value <= 4 else 16 * max(1, round(math.log2(value / 16)))


def _indices(value: Any) -> Any:
    """A rule for lists of layers: the second one only."""
    return type(value)([1]) if isinstance(value, (list, tuple)) and value else value


def _heads(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(min(HEADS, 2 ** int(math.log2(max(one, 1)))) for one in value)
    return min(value, HEADS) if value > 0 else value


def _square(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict.fromkeys(value, IMAGE)
    if isinstance(value, (list, tuple)):
        return type(value)(IMAGE for _ in value)
    return IMAGE


def _is_whole(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return float(value).is_integer()


# What becomes of a value of a configuration, by the first pattern its name matches in full.
RULES: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    (r".*(kernel|stride|padding|dilation|dropout|prob|eps|coef|cost|loss|ratio).*", _keep),
    (r"max_period|target_bandwidths|num_encoder_blocks|model_in_dim", _keep),
    (r"index_topk|indexer_budget", _cap(8)),
    (r"index_kpool|indexer_compress_ratio", _cap(2)),
    (r"num_pos_feats", _cap(WIDTH // 2)),
    (r"mamba_d_ssm", _set(FFN)),
    (r"upsample_groups", _set(WIDTH)),
    (r"(num|n)_groups", _cap(4)),
    (r".*(_token_ids?|_token_index|_rate|_std|_id|_ids|_stride|groups|num_labels)", _keep),
    (r"(type|pos|token_type)_vocab_size|group_size|window_size|.*_window_size", _keep),
    (r"(num_channels|in_chans|audio_channels|input_channels|num_input_channels)", _keep),
    (r".*_(indexes|indices)", _indices),
    (r"(mamba_n_heads|mamba_num_heads|n_mamba_heads)", _set(8)),
    (r".*(key_value_heads|kv_heads|num_kv_heads)", _cap(2)),
    (r".*(attention_heads|num_heads|n_heads?|nheads?|_heads|attn_heads)", _heads),
    (r"(qk_rope|qk_nope)_head_dim|rotary_dim|qk_pos_emb_head_dim", _set(HEAD_DIM // 2)),
    (r".*(head_dim|d_head|d_kv|kv_channels|head_size|dim_head|channels_per_head)", _set(HEAD_DIM)),
    (r".*rank", _cap(16)),
    (r"expert_capacity", _cap(8)),
    (r"moe_topk|.*per_tok(en)?|moe_k|.*top_?k|num_selected_experts", _cap(2)),
    (r"n_group|num_expert_group", _cap(2)),
    (r"topk_group", _cap(1)),
    (r".*shared_experts?", _cap(1)),
    (r".*experts", _cap(4)),
    (r".*topk", _cap(8)),
    (r".*moe.*(intermediate_size|ffn_dim|latent_size)|.*expert.*intermediate_size", _set(32)),
    (
        r".*(intermediate_size|ffn_dim|ff_dim|feedforward_dim|feed_forward_hidden_size|mlp_dim|d_ff"
        r"|d_inner|n_inner|inner_dim|dim_feedforward|ffn_hidden_size|ffn_size|mlp_hidden_size"
        r"|intermediate_dim|feed_forward_size|feed_forward_proj_dim|ffn_hidden_dim)",
        _set(FFN),
    ),
    (r".*(state_size|d_state|state_dim)", _cap(16)),
    (r"first_k_dense_replace|num_dense_layers|.*num_kv_shared_layers", _cap(1)),
    (r".*(interval|period|sparse_step|pattern)", _cap(2)),
    (r".*(layers|n_layer|depths?|num_blocks|num_block_repeats|blocks|layers_per_.*)", _cap(2)),
    (r"codebook_size", _cap(64)),
    (r".*vocab_size.*|.*num_embeddings|num_codevectors_per_group|vocab_offset", _set(VOCAB)),
    (
        r".*(position_embeddings|n_positions|seq_len|seq_length|max_length|source_positions"
        r"|target_positions|n_ctx|max_text_len|max_rel_pos|sliding_window|attention_window"
        r"|local_attention|num_pos|max_positions)",
        _cap(POSITIONS),
    ),
    (r"image_size|img_size|max_image_size|pretrain_image_size|crop_size|resolution", _square),
    (r"patch_size", _cap(PATCH)),
    (r".*chunk_size", _cap(8)),
    (
        r".*(num_queries|num_query_tokens|n_latents|num_latents|latent_query_num|num_denoising)",
        _cap(8),
    ),
    (r".*(hidden_sizes|channels|widths|embed_dims|filters|base_dim)", _channels),
    (
        r"(.*_)?(hidden_size|hidden_size_global|d_model|n_embd|dim|dimension|embedding_size|pooler_output_size"
        r"|width|d_latents|proj_size|projection_size|features|initial_channel)",
        _set(WIDTH),
    ),
)
_COMPILED = tuple((re.compile(pattern), rule) for pattern, rule in RULES)

# What becomes of values that are missing although the model needs them.
WHEN_NONE: dict[str, int] = {
    "head_dim": HEAD_DIM,
    "num_key_value_heads": HEADS,
    "num_experts_per_tok": 2,
    "prediction_length": 8,
    "vocab_size": VOCAB,
    "n_group": 1,
    "topk_group": 1,
}


def small_config(model_class: Any, name: str) -> Any:
    """The configuration of the class with all its sizes small."""
    config = _shrunk(_config_class(model_class, name)())
    for part in _parts(config):
        _place_special_tokens(part)
        _add_sections(part)
        if hasattr(part, "use_cache"):
            part.use_cache = False
    for key, value in OPTIONS.get(name, {}).items():
        setattr(config, key, value)
    return config


def _config_class(model_class: Any, name: str) -> Any:
    import transformers

    other = CONFIG_CLASSES.get(name)
    return getattr(transformers, other) if other else model_class.config_class


def _parts(config: Any) -> Iterator[Any]:
    """The configuration and all the configurations in it."""
    yield config
    for value in list(vars(config).values()):
        if _is_config(value):
            yield from _parts(value)


def _is_config(value: Any) -> bool:
    from transformers import PreTrainedConfig

    return isinstance(value, PreTrainedConfig)


def _shrunk(config: Any) -> Any:
    """The same kind of configuration built anew from small values, so that it derives the rest."""
    from transformers import PreTrainedConfig

    common = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    names = [field.name for field in dataclasses.fields(config) if field.name not in common]
    raw = vars(config)
    values = {name: raw[name] for name in names if raw.get(name) is not None}
    overrides = CONFIGS.get(type(config).__name__, {})
    small: dict[str, Any] = {}
    for name, value in values.items():
        if _is_config(value):
            small[name] = _shrunk(value)
        elif name == "rope_parameters":
            small[name] = copy.deepcopy(value)
        else:
            small[name] = _small(name, value)
    small.update({name: size for name, size in WHEN_NONE.items() if raw.get(name, 0) is None})
    _keep_equal(values, small)
    _choose_layers(values, small, overrides)
    _shrink_rope(small)
    _choose_outputs(values, raw.get("stage_names") or (), small)
    return type(config)(**(small | overrides))


def _small(name: str, value: Any) -> Any:
    """The value by the first rule for the name; no rule for text, fractions or lists of such."""
    numbers = value if isinstance(value, (list, tuple)) else [value]
    sized = isinstance(value, Mapping) or all(_is_whole(one) for one in numbers)
    rule = next((rule for pattern, rule in _COMPILED if pattern.fullmatch(name)), _keep)
    if not sized or (isinstance(value, Mapping) and rule is not _square):
        return value
    return rule(value)


def _keep_equal(values: dict[str, Any], small: dict[str, Any]) -> None:
    """Where each head has its own key and value heads, or rotates as a whole, so it stays."""
    pairs = [("head_dim", "qk_rope_head_dim")]
    for heads in [name for name in values if name.endswith("num_attention_heads")]:
        pairs.append((heads.replace("attention_heads", "key_value_heads"), heads))
    for name, other in pairs:
        if name in values and values[name] == values.get(other):
            small[name] = small[other]


def _choose_outputs(
    values: Mapping[str, Any], stages: Sequence[str], small: dict[str, Any]
) -> None:
    """Let a backbone return as many stages as before, the last ones if it has fewer layers."""
    small.pop("_out_features", None)
    small.pop("_out_indices", None)
    indices = values.get("_out_indices")
    if not indices:
        return
    name = _layer_count(values)
    if name is not None and len(stages) == values[name] + 1:
        small[name] = max(small[name], len(indices))
        indices = list(range(small[name] - len(indices) + 1, small[name] + 1))
    small["out_indices"] = indices


def _choose_layers(
    values: dict[str, Any], small: dict[str, Any], overrides: Mapping[str, Any]
) -> None:
    """Keep a few of the layers, each kind once, in every list with one entry for a layer."""
    count = _layer_count(values)
    if count is None or count in overrides:
        return
    total = values[count]
    lists = {
        name: value
        for name, value in values.items()
        if isinstance(value, (list, tuple)) and len(value) == total and total > 2
    }
    chosen = {0}
    for value in lists.values():
        kinds = [str(one) for one in value]
        if len(set(kinds)) <= 3:
            chosen |= {kinds.index(kind) for kind in set(kinds)}
    order = sorted(chosen)[:MAX_LAYERS]
    spare = (index for index in range(total) if index not in chosen)
    while len(order) < min(2, total):
        order.append(next(spare))
    small[count] = len(order)
    for name, value in lists.items():
        small[name] = type(value)(value[index] for index in sorted(order))


def _layer_count(values: Mapping[str, Any]) -> str | None:
    """The name under which a configuration keeps the number of its layers."""
    names = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "depth")
    return next((name for name in names if isinstance(values.get(name), int)), None)


def _place_special_tokens(config: Any) -> None:
    """Give special tokens ids inside the vocabulary and outside the range of plain tokens."""
    free = iter(range(PLAIN_TOKENS.stop, VOCAB))
    for name, value in list(vars(config).items()):
        if not re.fullmatch(r".*token_(id|index)|boi|eoi", name) or not isinstance(value, int):
            continue
        if value >= PLAIN_TOKENS.start:
            setattr(config, name, next(free))


def _shrink_rope(small: Mapping[str, Any]) -> None:
    """Make the sections of rotary embeddings fit the small heads."""
    for one in _ropes(small):
        if one.get("mrope_section"):
            one["mrope_section"] = _sections(one["mrope_section"], _rotated_half(small, one))


def _add_sections(config: Any) -> None:
    """State the sections where the model would otherwise assume those of its full size."""
    if "mrope_section" in getattr(config, "ignore_keys_at_rope_validation", ()):
        for one in _ropes(vars(config)):
            if "rope_theta" in one and not one.get("mrope_section"):
                one["mrope_section"] = _sections([3, 3, 2], _rotated_half(vars(config), one))


def _ropes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parameters of rotary embeddings, those of single kinds of layers too."""
    rope = values.get("rope_parameters")
    if not isinstance(rope, dict):
        return []
    return [rope, *(one for one in rope.values() if isinstance(one, dict))]


def _rotated_half(values: Mapping[str, Any], rope: Mapping[str, Any]) -> int:
    """Half the number of channels of a head that are rotated."""
    dim = values.get("qk_rope_head_dim") or values.get("head_dim") or HEAD_DIM
    return int(dim * rope.get("partial_rotary_factor", 1.0)) // 2


def _sections(sections: list[int], total: int) -> list[int]:
    small = [max(1, size * total // sum(sections)) for size in sections]
    small[-1] += total - sum(small)
    return small


def _without_storage(model_class: Any, config: Any) -> nn.Module:
    """A model whose parameters take no memory; an empty one for classes that cannot be so made."""
    try:
        with torch.device("meta"):
            model: nn.Module = model_class(config)
            return model
    except Exception:
        return nn.Module()


def _check_size(model: nn.Module) -> None:
    """Refuse a model that is still large."""
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > MAX_PARAMETERS:
        raise LeftOut(f"not shrunk: {count / 1e6:.0f} million parameters")


# --------------------------------------------------------------------------------------------------
# Inputs

# Optional inputs that are given whenever the forward method has them.
COMPANIONS = ("bbox", "decoder_input_ids", "decoder_input_values", "future_values")

# Optional inputs that are given only where the model does not run without them.
MODALITIES = (
    "input_ids",
    "pixel_values",
    "input_features",
    "input_values",
    "pixel_values_videos",
    "future_time_features",
)


class _Sizes:
    """Reads sizes from a configuration or, where it lacks them, from those inside it."""

    def __init__(self, config: Any) -> None:
        self.parts = list(_parts(config))

    def get(self, *names: str, default: Any = None) -> Any:
        """The first of the names that any part of the configuration has."""
        for part in self.parts:
            for name in names:
                name = part.attribute_map.get(name, name)
                if vars(part).get(name) is not None:
                    return vars(part)[name]
        return default

    def image(self) -> tuple[int, int]:
        """Height and width of an image."""
        value = self.get("image_size", "img_size", default=IMAGE)
        if isinstance(value, Mapping):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            return (value[0], value[-1])
        return (value, value)

    def channels(self) -> int:
        """Channels of an image."""
        value = self.get("num_channels", "in_channels", "in_chans", "input_channels", default=3)
        return value if isinstance(value, int) and value <= 4 else 3


def _tokens(*shape: int) -> Tensor:
    return torch.randint(PLAIN_TOKENS.start, PLAIN_TOKENS.stop, shape)


def _boxes(sizes: _Sizes) -> Tensor:
    low = torch.randint(0, 20, (1, TOKENS, 2))
    return torch.cat([low, low + torch.randint(1, 20, (1, TOKENS, 2))], dim=-1)


MAKERS: dict[str, Callable[[_Sizes], Tensor]] = {
    "input_ids": lambda s: _tokens(1, TOKENS),
    "decoder_input_ids": lambda s: _tokens(1, TOKENS - 2),
    "qformer_input_ids": lambda s: _tokens(1, TOKENS),
    "attention_mask": lambda s: torch.ones(1, TOKENS, dtype=torch.long),
    "token_type_ids": lambda s: torch.zeros(1, TOKENS, dtype=torch.long),
    "bbox": _boxes,
    "pixel_attention_mask": lambda s: torch.ones(1, GRID * GRID, dtype=torch.long),
    "spatial_shapes": lambda s: torch.tensor([[GRID, GRID]]),
    "hidden_states": lambda s: _patches(s),
    "latents": lambda s: torch.randn(1, s.get("hidden_size", default=WIDTH), TOKENS),
    "merge_sizes": lambda s: torch.tensor([2]),
    "pixel_values_videos": lambda s: torch.randn(
        1, s.get("num_frames", "frames_per_clip", default=4), s.channels(), *s.image()
    ),
    "inputs_embeds": lambda s: torch.randn(1, TOKENS, s.get("hidden_size", default=WIDTH)),
    "input_features_mask": lambda s: torch.ones(1, FRAMES, dtype=torch.long),
    "grid_thw": lambda s: torch.tensor([[1, GRID, GRID]]),
    "image_grid_thw": lambda s: torch.tensor([[1, GRID, GRID]]),
}


# Inputs that models lay out in different ways, to be tried in turn.
VARIANTS: dict[str, tuple[Callable[[_Sizes], Tensor], ...]] = {
    "pixel_values": (
        lambda s: torch.randn(1, s.channels(), *s.image()),
        lambda s: torch.randn(1, s.get("num_frames", default=2), s.channels(), *s.image()),
        lambda s: _patches(s),
        lambda s: _patches(s)[None],
    ),
    "input_features": (
        lambda s: torch.randn(1, _mels(s), FRAMES),
        lambda s: torch.randn(1, FRAMES, _mels(s)),
        lambda s: torch.randn(1, _mels(s), 2 * s.get("max_source_positions", default=FRAMES)),
    ),
    "input_values": (
        lambda s: torch.randn(1, SAMPLES),
        lambda s: torch.randn(1, 1, SAMPLES),
        lambda s: torch.randn(1, s.get("max_length", default=FRAMES), _mels(s)),
    ),
    "past_values": (
        lambda s: torch.randn(1, s.get("context_length", default=FRAMES)),
        lambda s: torch.randn(1, s.get("context_length", default=FRAMES), 1),
    ),
}


def _mels(sizes: _Sizes) -> int:
    names = ("feature_projection_input_dim", "num_mel_bins", "num_mel_channels", "input_size")
    more = ("feature_size", "input_feat_per_channel", "input_dim")
    return int(sizes.get(*names, *more, default=80))


def _patches(sizes: _Sizes) -> Tensor:
    """The flattened patches of an image, those of one patch in one row."""
    size = sizes.get("patch_size", default=PATCH)
    area = size[0] * size[1] if isinstance(size, (list, tuple)) else size * size
    frames = sizes.get("temporal_patch_size", "patch_temporal", default=1)
    return torch.randn(GRID * GRID, sizes.channels() * frames * area)


def _made(name: str, parameter: str, sizes: _Sizes, variant: int) -> Tensor:
    special = INPUTS.get(name, {}).get(parameter)
    if special is not None:
        return _described(special)
    if parameter in VARIANTS:
        choices = VARIANTS[parameter]
        return choices[min(variant, len(choices) - 1)](sizes)
    if parameter not in MAKERS:
        raise LeftOut(f"no input is known for {parameter}")
    return MAKERS[parameter](sizes)


def _described(description: tuple[Any, ...]) -> Tensor:
    """A tensor from the words of the table: how to fill it, then its shape or its values."""
    kind, *rest = description
    match kind:
        case "randn":
            return torch.randn(*rest)
        case "rand":
            return torch.rand(*rest)
        case "tokens":
            return _tokens(*rest[0])
        case "ones":
            return torch.ones(*rest, dtype=torch.long)
        case "zeros":
            return torch.zeros(*rest, dtype=torch.long)
        case "false":
            return torch.zeros(*rest, dtype=torch.bool)
        case "floats":
            return torch.ones(*rest)
        case "values":
            return torch.tensor(*rest)
        case _:
            raise ValueError(f"no kind of input is called {kind}")


def _plans(model: nn.Module, name: str) -> Iterator[tuple[str, ...]]:
    """The sets of inputs to try: what has to be there first, then other modalities, then masks."""
    if name in INPUTS:
        yield tuple(INPUTS[name])
        return
    parameters = inspect.signature(model.forward).parameters
    named = {
        key: one
        for key, one in parameters.items()
        if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    }
    main = model.main_input_name
    needed = {key for key, one in named.items() if one.default is one.empty}
    needed |= {key for key in named if key == main or key in COMPANIONS}
    more = needed | {key for key in named if key in MODALITIES}
    for chosen in (needed, more, more | ({"attention_mask"} & set(named))):
        yield tuple(key for key in named if key in chosen)


def _attempts(model: nn.Module, name: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """The sets of inputs to try, each in all its layouts."""
    for names in dict.fromkeys(_plans(model, name)):
        layouts = [len(VARIANTS[one]) for one in names if one in VARIANTS]
        for variant in range(max(layouts, default=1)):
            yield names, variant


class _Positional(nn.Module):
    """Calls a model with its inputs by position and returns the float tensors of its output."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names
        parameters = inspect.signature(model.forward).parameters
        options = {"use_cache": False, "return_dict": True}
        self.options = {key: value for key, value in options.items() if key in parameters}

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The primary outputs of the model."""
        output = self.model(**dict(zip(self.names, inputs)), **self.options)
        found: dict[int, Tensor] = {}
        for tensor in _floats(output):
            found.setdefault(id(tensor), tensor)
        return tuple(found.values())


def _floats(output: Any) -> Iterator[Tensor]:
    """The float tensors of a model's output, those of its side outputs left out."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            if not SIDE_OUTPUTS.fullmatch(str(key)):
                yield from _floats(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from _floats(value)


def _with_inputs(model: nn.Module, name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The wrapped model and the first set of inputs on which it runs."""
    sizes = _Sizes(model.config)
    failure: Exception | None = None
    for names, variant in _attempts(model, name):
        torch.manual_seed(1)
        try:
            inputs = tuple(_made(name, parameter, sizes, variant) for parameter in names)
            module = _Positional(model, names).eval()
            _check_outputs(module, inputs)
            if not _reacts(module, inputs):
                fit_to_inputs(module, inputs)
                _check_outputs(module, inputs)
        except Exception as error:
            failure = error if variant == 0 else failure
            continue
        return module, inputs
    raise failure or LeftOut("no inputs")


def _reacts(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether another input gives another output, beyond what rounding could hide."""
    others = other_inputs(inputs, torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = module(*inputs), module(*others)
    same_shapes = all(a.shape == b.shape for a, b in zip(first, second))
    return not same_shapes or worst_difference(second, first) > LEAST_REACTION


def _check_outputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Refuse a model whose output is empty, not finite or not the same each time."""
    with torch.no_grad():
        first = module(*inputs)
        second = module(*inputs)
    if not first:
        raise LeftOut("no float output")
    if not all(bool(torch.isfinite(one).all()) for one in first):
        raise LeftOut("its output is not finite")
    for one, other in zip(first, second):
        if one.shape != other.shape or not torch.equal(one, other):
            raise LeftOut("its output is random")

"""Attention whose heads do not fill the width: torch's own otherwise, written back and trained."""

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgeprune import resize, write_back
from edgeprune.graph.capture import capture
from edgeprune.graph.network import analyse
from edgeprune.graph.write_back.attention import ShrunkAttention, free_heads

WIDTH, HEADS, QUERIES, KEYS = 24, 4, 5, 7
MADE = {
    "plain": {},
    "no bias": {"bias": False},
    "learned and zero key": {"add_bias_kv": True, "add_zero_attn": True},
    "own keys": {"kdim": 10, "vdim": 12},
}


def masks(batch: int) -> list[dict[str, Any]]:
    later = torch.ones(QUERIES, KEYS, dtype=torch.bool).triu(3)
    padding = torch.zeros(batch, KEYS, dtype=torch.bool)
    padding[:, -2:] = True
    causal = torch.zeros(QUERIES, KEYS).masked_fill(later, float("-inf"))
    return [
        {},
        {"attn_mask": later, "need_weights": False},
        {"attn_mask": torch.randn(batch * HEADS, QUERIES, KEYS), "average_attn_weights": False},
        {"attn_mask": causal, "key_padding_mask": torch.randn(batch, KEYS)},
        {"key_padding_mask": padding, "need_weights": False},
    ]


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
@pytest.mark.parametrize("batch_first", [True, False])
def test_it_computes_what_torchs_attention_does(made: dict[str, Any], batch_first: bool) -> None:
    torch.manual_seed(0)
    own = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first, **made)
    ours = copy.deepcopy(own)
    free_heads(ours, {"": {"scale": (WIDTH // HEADS) ** -0.5}})
    assert isinstance(ours, ShrunkAttention)
    assert list(ours.state_dict()) == list(own.state_dict())
    for batch, (number, arguments) in itertools.product((1, 3), enumerate(masks(1))):
        arguments = masks(batch)[number]
        inputs = [torch.randn(batch, QUERIES, WIDTH)]
        inputs += [torch.randn(batch, KEYS, made.get(n, WIDTH)) for n in ("kdim", "vdim")]
        inputs = inputs if batch_first else [x.transpose(0, 1) for x in inputs]
        for have, want in zip(ours(*inputs, **arguments), own(*inputs, **arguments), strict=True):
            torch.testing.assert_close(have, want)
    alone = [x.select(1 - batch_first, 0) for x in inputs]
    for have, want in zip(ours(*alone), own(*alone), strict=True):
        torch.testing.assert_close(have, want)


def test_a_hint_without_its_mask_is_refused() -> None:
    attention = nn.MultiheadAttention(WIDTH, HEADS)
    free_heads(attention, {"": {"scale": 1.0}})
    x = torch.randn(2, 3, WIDTH)
    with pytest.raises(ValueError, match="attn_mask"):
        attention(x, x, x, is_causal=True)


class Attending(nn.Module):
    """Torch's attention between a width that is kept and what reads it."""

    def __init__(self, weights: bool, **made: Any) -> None:
        super().__init__()
        self.weights, self.apart = weights, "kdim" in made
        self.embed, self.norm = nn.Linear(6, WIDTH), nn.LayerNorm(WIDTH)
        if self.apart:
            self.keys, self.values = nn.Linear(6, made["kdim"]), nn.Linear(6, made["vdim"])
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **made)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.embed(x))
        # Packed projections read one tensor; torch then takes its fast path in eval mode.
        k, v = (self.keys(x), self.values(x)) if self.apart else (h, h)
        mixed, _ = self.attention(h, k, v, need_weights=self.weights)
        return self.head(h + mixed)


class Encoder(nn.Module):
    """Torch's encoder, which computes whole layers by one operator in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, dropout=0.0, batch_first=True)
        self.embed, self.encoder = nn.Linear(6, WIDTH), nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(self.embed(x), src_key_padding_mask=padding))


@pytest.mark.parametrize("kind", ["heads", "head_width", "width"])
@pytest.mark.parametrize(
    "dense", [*(Attending(False, **m) for m in MADE.values()), Attending(True), Encoder()]
)
def test_heads_go_without_the_width_and_train_like_the_graph(dense: nn.Module, kind: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 6)
    network = analyse(capture(dense.eval(), (x,)))
    keep = {
        name: range(s.units // 2, s.units) if s.kind == kind else range(s.units)
        for name, s in network.structures.items()
    }
    graph, model = network.shrink(keep), copy.deepcopy(dense)
    sizes = write_back(model, network, keep, graph)
    fresh = resize(copy.deepcopy(dense), sizes)
    fresh.load_state_dict(model.state_dict())
    wanted = graph(x)[0]
    for module in (model, fresh):
        with torch.no_grad():
            torch.testing.assert_close(module.eval()(x), wanted)
        found = module.train()(x)
        torch.testing.assert_close(found, wanted)
        found.square().mean().backward()
    wanted.square().mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    for name, parameter in graph.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)


def test_an_encoder_without_some_heads_takes_padding_in_both_modes() -> None:
    torch.manual_seed(0)
    model, x = Encoder().eval(), torch.randn(2, 5, 6)
    network = analyse(capture(model, (x,)))
    keep = {
        name: range(s.units // 2) if s.kind == "heads" else range(s.units)
        for name, s in network.structures.items()
    }
    write_back(model, network, keep)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        found = model(x, padding)
    torch.testing.assert_close(found[0], model(x)[0])
    torch.testing.assert_close(found[1, :3], model(x[1:, :3])[0])
    torch.testing.assert_close(model.train()(x, padding)[1, :3], found[1, :3])

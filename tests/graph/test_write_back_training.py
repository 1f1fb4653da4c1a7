"""Training goes on in the module that was written back, or a note says what does not."""

import copy
import re
from typing import Any

import pytest
import torch
from masked_reference import flat
from shrinking import EXPRESSIBLE, analysed, half, prepared
from torch import Tensor, nn

from edgeprune import write_back


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_every_parameter_gets_the_graphs_gradient_in_train_mode(name: str) -> None:
    dense, inputs, network = prepared(name)
    model, graph, keep = copy.deepcopy(dense), network.shrink(half(network)), half(network)
    sizes = write_back(model, network, keep, graph)
    assert not [note for note in sizes.notes if "train mode" in note]
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.BatchNorm2d):
            module.eval()
    for module in (model, graph):
        sum((y**2).mean() for y in flat(module(*inputs))).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    wanted = {n: p.grad for n, p in graph.named_parameters() if p.grad is not None}
    assert gradients.keys() == wanted.keys()
    for n, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[n], rtol=1e-3, atol=1e-6)


class Trained(nn.Module):
    """In train mode it does more: what, is said by its argument."""

    def __init__(self, more: str) -> None:
        super().__init__()
        self.more, self.up, self.down = more, nn.Linear(4, 8), nn.Linear(8, 2)
        self.auxiliary, self.dropout = nn.Linear(8, 3), nn.Dropout(0.5)
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, x: Tensor) -> Any:
        y = self.dropout(self.up(x)).relu()
        if self.training:
            self.steps += torch.rand(1)
            if self.more == "auxiliary":
                return self.down(y), self.auxiliary(y)
            if self.more == "detached" and y.shape[1] < 8:
                y = y.detach()
            if self.more == "scaled":
                y = y * (y.shape[1] / 8)
        return self.down(y)


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ("", None),
        ("auxiliary", r"fails in auxiliary \(Linear\) at .*test_write_back_training\.py:\d+"),
        ("detached", r"no gradient reaches up\.bias, up\.weight any more"),
        ("scaled", "something else than in eval mode"),
    ],
)
def test_what_of_training_does_not_go_on_is_noted(more: str, note: str | None) -> None:
    torch.manual_seed(0)
    model, x = Trained(more).eval(), torch.randn(3, 4)
    network = analysed(model, x)
    graph, state = network.shrink(half(network)), torch.get_rng_state()
    sizes = write_back(model, network, half(network), graph)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(model(x), graph(x)[0])
    assert float(model.steps) == 0
    assert not any(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    found = [text for text in sizes.notes if "in train mode" in text]
    assert len(found) == (note is not None)
    assert note is None or re.search(note, found[0])

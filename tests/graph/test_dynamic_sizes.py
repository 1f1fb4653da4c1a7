"""Networks whose graph computes with the sizes of its inputs."""

import pytest
import torch
from exactness import compare
from masked_reference import plain_copy, zero_removed
from torch import nn

from edgeprune.graph.capture import capture
from edgeprune.graph.network import analyse


def test_sizes_that_are_multiplied_freeze_nothing() -> None:
    layer = nn.TransformerEncoderLayer(24, 3, 48, dropout=0.0, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    network = analyse(capture(model, (torch.zeros(1, 5, 24),), (torch.randn(7, 5, 24),)))
    units = sorted(structure.units for structure in network.structures.values())
    assert units[:2] == [3, 3] and units.count(48) == 2


class Tagger(nn.Module):
    """A recurrent network whose first state, and an average of its own, have the batch's size."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 10)
        self.lstm = nn.LSTM(10, 8, batch_first=True, bidirectional=True)
        self.mix, self.head = nn.Linear(16, 6), nn.Linear(6, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y, _ = self.lstm(self.embed(ids))
        y = self.mix(y)
        total = torch.zeros(ids.shape[0], 6)
        for step in range(2):
            total = total + y[:, step]
        y = y + torch.zeros_like(y)
        return self.head(y + total.unsqueeze(1))


def test_values_of_the_batch_s_size_shrink_with_what_they_meet() -> None:
    model = Tagger().eval()
    examples = (torch.randint(0, 12, (1, 5)),)
    network = analyse(capture(model, examples, (torch.randint(0, 12, (4, 7)),)))
    kinds = {s.kind: s.units for s in network.structures.values()}
    assert kinds["hidden"] == 8 and 6 in {s.units for s in network.structures.values()}
    keep = {name: range(s.units // 2) for name, s in network.structures.items()}
    pruned, masked = network.shrink(keep), plain_copy(model)
    zero_removed(masked, network.structures, keep)
    for shape in ((1, 5), (3, 9)):
        ids = (torch.randint(0, 12, shape),)
        assert compare(pruned, masked, ids).outcome == "exact"


class Expanded(nn.Module):
    """Stacked layers that start from one number, expanded to the batch and their units."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("start", torch.zeros(()))
        self.first, self.second = nn.GRU(4, 8), nn.GRU(8, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.first(x, self.start.expand(1, x.shape[1], 8))
        y, _ = self.second(y, self.start.expand(2, x.shape[1], 6)[1:])
        return self.head(y)


def test_what_is_expanded_to_the_batch_shrinks_with_what_it_meets() -> None:
    model = Expanded().eval()
    captured = capture(model, (torch.randn(5, 1, 4),), (torch.randn(7, 3, 4),))
    network = analyse(captured)
    assert sorted(s.units for s in network.structures.values()) == [6, 8]
    keep = {name: range(s.units // 2) for name, s in network.structures.items()}
    pruned, masked = network.shrink(keep), plain_copy(model)
    zero_removed(masked, network.structures, keep)
    for shape in ((5, 1, 4), (9, 3, 4)):
        assert compare(pruned, masked, (torch.randn(shape),)).outcome == "exact"


class Chosen(nn.Module):
    """Only the tokens that are above a bound are computed with, and there may be none."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.embed = nn.Linear(4, 6)
        self.up, self.down, self.head = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.embed(x)
        mask = x[..., 0] > self.bound
        rows = torch.sigmoid(self.up(y[mask]))
        y = torch.masked_scatter(y, mask.unsqueeze(-1), self.down(rows + torch.ones_like(rows)))
        y[~mask] = y[~mask] + 1
        return self.head(y)


@pytest.mark.parametrize("bound", [9.0, 0.0], ids=["none at first", "some at first"])
def test_what_is_chosen_by_values_shrinks_exactly(bound: float) -> None:
    model = Chosen(bound).eval()
    examples = (torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(0)),)
    network = analyse(capture(model, examples))
    assert sorted(s.units for s in network.structures.values()) == [6, 8]
    keep = {name: range(s.units // 2) for name, s in network.structures.items()}
    pruned, masked = network.shrink(keep), plain_copy(model)
    zero_removed(masked, network.structures, keep)
    assert compare(pruned, masked, (examples[0] * 9,)).outcome == "exact"


class _Joined(nn.Module):
    """Rows of two branches behind one another; nothing of one of them leaves zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 3, bias=False)
        self.other = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.second(torch.relu(self.first(x))).flatten(0, 1)
        rows = torch.nan_to_num(rows / rows.norm(dim=-1, keepdim=True), nan=7.0)
        return torch.cat([rows, self.other(x).flatten(0, 1)])


def test_zeros_of_an_open_size_can_be_joined_to_something() -> None:
    torch.manual_seed(0)
    model, x = _Joined().eval(), torch.randn(2, 4, 5)
    network = analyse(capture(model, (x,), (torch.randn(3, 4, 5),)))
    (name,) = (n for n, s in network.structures.items() if s.removable)
    pruned = network.shrink({name: []})
    masked = plain_copy(model)
    with torch.no_grad():
        masked.second.weight.zero_()
        for rows in (x, torch.randn(5, 4, 5)):
            torch.testing.assert_close(pruned(rows)[0], masked(rows))

"""What a stage's key depends on, and samples at the deployed shape."""

import torch
from torch import nn

from edgeprune.compression.calibration import deal
from edgeprune.graph.capture import capture
from edgeprune.graph.network import analyse
from edgeprune.stages.deployed import deployed_samples
from edgeprune.stages.subject import data_key, model_key


class Net(nn.Module):
    def __init__(self, dilation: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=dilation, dilation=dilation)
        self.last = nn.Conv2d(8, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).relu())


def key(size: int, dilation: int = 1) -> str:
    model = Net(dilation).eval()
    return model_key(model, analyse(capture(model, (torch.zeros(1, 3, size, size),))))


def test_the_same_model_at_another_size_or_with_other_operators_is_another() -> None:
    assert key(16) == key(16)
    assert len({key(16), key(24), key(16, dilation=2)}) == 3


def test_other_data_behind_the_same_path_are_other_data() -> None:
    batches = [(torch.full((4, 2), float(index)),) for index in range(16)]
    first = data_key(deal(batches, 16, 4, 4))
    assert data_key(deal(batches, 16, 4, 4)) == first
    batches[3][0][2, 1] += 1e-3
    assert data_key(deal(batches, 16, 4, 4)) != first


def test_a_deployed_batch_is_filled_from_smaller_ones() -> None:
    examples = (torch.zeros(8, 5),)
    batches = [(torch.arange(3.0)[:, None] + 3 * index + torch.zeros(3, 4),) for index in range(6)]
    samples = list(deployed_samples(batches, examples, 100))
    assert [tuple(x.shape) for (x,) in samples] == [(8, 5), (8, 5)]
    assert torch.equal(torch.cat([x[:, 0] for (x,) in samples]), torch.arange(16.0))
    assert not samples[0][0][:, 4].any()


def test_fewer_samples_than_a_deployed_batch_are_taken_over_again() -> None:
    examples = (torch.zeros(8, 2),)
    ((found,),) = deployed_samples([(torch.tensor([[1.0, 1.0], [2.0, 2.0]]),)], examples, 100)
    assert found[:, 0].tolist() == [1.0, 2.0] * 4

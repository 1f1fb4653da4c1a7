"""Tiny teachers and students: the student has the same layers, narrower inside."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgeprune.formats import DENSE_INT8, Format, parse_format
from edgeprune.graph.capture import capture

Batch = tuple[Tensor, ...]
Batches = Callable[[], Iterator[Batch]]


class Mlp(nn.Module):
    def __init__(self, inner: int) -> None:
        super().__init__()
        self.first = nn.Linear(8, inner)
        self.second = nn.Linear(inner, 16)
        self.third = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(F.relu(self.second(F.relu(self.first(x)))))


class Cnn(nn.Module):
    def __init__(self, inner: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.narrow = nn.Conv2d(8, inner, 3, padding=1, bias=False)
        self.narrow_norm = nn.BatchNorm2d(inner)
        self.wide = nn.Conv2d(inner, 8, 3, padding=1, bias=False)
        self.wide_norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        y = F.relu(self.narrow_norm(self.narrow(x)))
        x = F.relu(x + self.wide_norm(self.wide(y)))
        return self.head(x.mean((2, 3)))


class Encoder(nn.Module):
    def __init__(self, heads: int, inner: int, words: int = 40) -> None:
        super().__init__()
        self.heads = heads
        self.words = nn.Embedding(words, 16)
        self.query, self.key, self.value = (nn.Linear(16, 4 * heads) for _ in range(3))
        self.out = nn.Linear(4 * heads, 16)
        self.norm = nn.LayerNorm(16)
        self.grow, self.shrink = nn.Linear(16, inner), nn.Linear(inner, 16)
        self.last_norm = nn.LayerNorm(16)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.words(ids)
        q, k, v = (
            part(x).unflatten(-1, (self.heads, 4)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        visible = mask[:, None, None, :] > 0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        x = self.norm(x + self.out(y.transpose(1, 2).flatten(2)))
        x = self.last_norm(x + self.shrink(F.gelu(self.grow(x))))
        weights = mask.unsqueeze(-1).to(x.dtype)
        return F.normalize((x * weights).sum(1) / weights.sum(1), dim=1)


def mlp() -> tuple[fx.GraphModule, fx.GraphModule, Batches]:
    """Student, teacher and batches of 24 samples each."""
    torch.manual_seed(0)
    data = [(torch.randn(24, 8),) for _ in range(12)]
    return (*_captured(Mlp(6), Mlp(32), (data[0][0][:1],), (data[0][0][:3],)), lambda: iter(data))


def cnn() -> tuple[fx.GraphModule, fx.GraphModule, Batches]:
    """Student, teacher and batches of 16 images each."""
    torch.manual_seed(0)
    data = [(torch.randn(16, 3, 8, 8),) for _ in range(12)]
    teacher = Cnn(16).train()
    for (images,) in data:
        teacher(images)
    return (*_captured(Cnn(4), teacher, (data[0][0][:1],), (data[0][0][:3],)), lambda: iter(data))


def lookup() -> tuple[fx.GraphModule, fx.GraphModule, Batches]:
    """As :func:`encoder`, with a table of words as large as real ones."""
    return encoder(70_000)


def encoder(words: int = 40) -> tuple[fx.GraphModule, fx.GraphModule, Batches]:
    """Student, teacher and batches of 12 sentences, of five lengths."""
    torch.manual_seed(0)
    data = []
    for length in (4, 5, 7, 9, 12) * 3:
        mask = torch.ones(12, length, dtype=torch.long)
        mask[::2, -1] = 0
        data.append((torch.randint(0, words, (12, length)), mask))
    example = (torch.ones(1, 6, dtype=torch.long), torch.ones(1, 6, dtype=torch.long))
    return (
        *_captured(Encoder(1, 8, words), Encoder(4, 64, words), example, data[0]),
        lambda: iter(data),
    )


def store_in_formats(student: fx.GraphModule) -> dict[str, Format]:
    """Zero blocks of every other layer of the student; formats for all, of several kinds."""
    sparse = [parse_format(name) for name in ("int8-4x1-50", "bf16-2x3-40", "f32-4x1-60")]
    formats: dict[str, Format] = {}
    for node in student.graph.nodes:
        if str(node.target) not in ("aten.linear.default", "aten.conv2d.default"):
            continue
        if len(formats) % 2:
            formats[node.name] = DENSE_INT8
            continue
        chosen = formats[node.name] = sparse[len(formats) // 2 % len(sparse)]
        zero_blocks(student.get_parameter(node.args[1].target), chosen)
    return formats


@torch.no_grad()
def zero_blocks(weight: Tensor, chosen: Format) -> None:
    """Zero random blocks of a weight, about as many as the format says."""
    assert chosen.block is not None
    rows, depth = chosen.block
    matrix = weight.flatten(1)
    for row in range(0, len(matrix), rows):
        for column in range(0, matrix.shape[1], depth):
            if torch.rand(()) < chosen.sparsity:
                matrix[row : row + rows, column : column + depth] = 0.0
    weight.copy_(matrix.view_as(weight))


def _captured(
    student: nn.Module, teacher: nn.Module, example: Batch, sample: Batch
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Both as graphs; the student starts from the teacher's weights where they fit."""
    mine = student.state_dict()
    for name, value in teacher.state_dict().items():
        corner = tuple(slice(0, size) for size in mine[name].shape)
        mine[name].copy_(value[corner])
    return tuple(  # type: ignore[return-value]
        capture(model.eval(), example, sample).module for model in (student, teacher)
    )

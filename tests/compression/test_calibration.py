"""How batches are dealt out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.compression.calibration import deal, furthest_from
from edgeprune.errors import TaskError


def batches(count: int, size: int = 4) -> list[tuple[torch.Tensor, ...]]:
    return [(torch.full((size, 2), float(index)),) for index in range(count)]


def numbers(part: tuple[tuple[torch.Tensor, ...], ...]) -> set[int]:
    return {int(batch[0][0, 0]) for batch in part}


@given(
    count=st.integers(8, 60),
    fit=st.integers(1, 80),
    score=st.integers(1, 40),
    held=st.integers(1, 40),
)
def test_no_batch_serves_two_ends(count: int, fit: int, score: int, held: int) -> None:
    dealt = deal(batches(count), fit, score, held)
    parts = [numbers(part) for part in (dealt.fit, dealt.score, dealt.held)]
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert all(parts)


def test_training_never_sees_what_is_held_back() -> None:
    data = batches(40)
    dealt = deal(data, 32, 8, 16)
    seen = {int(batch[0][0, 0]) for batch in dealt.trainable(lambda: data)()}
    assert not seen & numbers(dealt.held)
    assert numbers(dealt.fit) <= seen


def test_only_as_many_batches_are_read_as_needed() -> None:
    read = []

    def stream():  # type: ignore[no-untyped-def]
        for batch in batches(1000):
            read.append(batch)
            yield batch

    deal(stream(), 24, 8, 8)
    assert len(read) < 40


def test_too_few_batches_are_refused() -> None:
    with pytest.raises(TaskError, match="5 batches"):
        deal(batches(5), 8, 4, 4)


def test_the_sample_of_a_capture_varies_where_any_batch_does() -> None:
    example = (torch.zeros(1, 32, dtype=torch.int64),)
    lengths = (32, 32, 17, 32)
    sentences = [(torch.zeros(4, length, dtype=torch.int64),) for length in lengths]
    sample = furthest_from(example, sentences)
    assert sample is not None and sample[0].shape == (4, 17)
    assert furthest_from(example, [example]) is None

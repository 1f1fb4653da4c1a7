"""The union-find behaves like sets, and label tensors like what they stand for."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.graph.labels import LabelSets, strip, varying_dims

COUNT = 12
PAIRS = st.lists(st.tuples(st.integers(0, COUNT), st.integers(0, COUNT)), max_size=20)


def partition(pairs: list[tuple[int, int]]) -> list[set[int]]:
    sets = [{i} for i in range(COUNT + 1)]
    for a, b in pairs:
        first = next(s for s in sets if a in s)
        second = next(s for s in sets if b in s)
        if first is not second:
            sets.remove(second)
            first |= second
    return sets


@given(PAIRS, st.lists(st.integers(1, COUNT), max_size=3), st.booleans())
def test_union_and_freeze_agree_with_plain_sets(pairs, frozen, at_once) -> None:
    sets = LabelSets()
    sets.fresh(COUNT, "features")
    for label in frozen:
        sets.freeze([label], 5)
    for chunk in [pairs] if at_once and pairs else [[p] for p in pairs]:
        sets.union([a for a, _ in chunk], [b for _, b in chunk], 7)
    want = partition(pairs)
    found = sets.find(np.arange(COUNT + 1))
    for group in want:
        if 0 in group or group & set(frozen):
            assert {int(found[i]) for i in group} == {0}
        else:
            assert len({int(found[i]) for i in group}) == 1
    free = [int(found[min(g)]) for g in want if found[min(g)] != 0]
    assert len(free) == len(set(free))


def test_many_unions_at_once_equal_few_at_a_time() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.integers(1, 5000, (3000, 2))
    together, apart = LabelSets(), LabelSets()
    for sets in (together, apart):
        sets.fresh(5000, "features")
    together.union(pairs[:, 0], pairs[:, 1], 1)
    for part in np.array_split(pairs, 60):
        apart.union(part[:, 0], part[:, 1], 1)
    first, second = together.find(np.arange(5000)), apart.find(np.arange(5000))
    assert np.array_equal(first, second)


def test_a_class_remembers_the_first_cause() -> None:
    sets = LabelSets()
    sets.fresh(3, "features")
    sets.union([1], [2], 4)
    sets.freeze([2], 8)
    sets.freeze([1], 9)
    sets.union([3], [1], 4)
    assert sets.cause([1, 2, 3]).tolist() == [8, 8, 8]


def test_the_same_origin_gives_the_same_labels() -> None:
    sets = LabelSets()
    assert torch.equal(sets.fresh(4, "a"), sets.fresh(4, "a"))
    assert not set(sets.fresh(4, "a").tolist()) & set(sets.fresh(4, "b").tolist())


def test_expanded_labels_stay_small() -> None:
    sets = LabelSets()
    wide = sets.fresh(5, "a").reshape(1, 5, 1).expand(1000, 5, 1000)
    assert strip(wide).numel() == 5
    assert sets.classes(wide).shape == (1, 5, 1)
    assert varying_dims(sets.classes(wide)) == [1]
    assert sets.tie(wide, [1], 1).numel() == 1
    assert not sets.varies(wide, [0, 1, 2])

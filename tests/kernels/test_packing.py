"""The packed form: what is refused, and that nothing altered is ever read."""

import copy
import gc
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_reference import block_sparse

from edgeprune.errors import InputError
from edgeprune.kernels import BLOCKS, PackedWeight, pack

Block = tuple[int, int]
KINDS = [(precision, block) for precision, blocks in BLOCKS.items() for block in blocks]


@pytest.mark.parametrize(("precision", "block"), KINDS)
def test_a_saved_weight_is_the_same(precision: str, block: Block, tmp_path: Path) -> None:
    weight = block_sparse(np.random.default_rng(0), 64, 50, block, 0.8)
    packed = pack(weight, block, precision)
    packed.save(tmp_path / "layer.epw")
    loaded = PackedWeight.load(tmp_path / "layer.epw")
    assert (loaded.precision, loaded.block) == (precision, block)
    assert (loaded.outputs, loaded.inputs) == (64, 50)
    x = np.random.default_rng(1).standard_normal((9, 50)).astype(np.float32)
    np.testing.assert_array_equal(loaded.multiply(x), packed.multiply(x))


@pytest.mark.parametrize(("precision", "block"), KINDS)
def test_zeros_take_no_room(precision: str, block: Block) -> None:
    rng = np.random.default_rng(0)
    full, tenth = (
        pack(block_sparse(rng, 512, 512, block, sparsity), block, precision).data.size
        for sparsity in (0.0, 0.9)
    )
    assert tenth < 0.2 * full
    signed = -np.zeros((512, 512), np.float32)
    assert pack(signed, block, precision).data.size < 0.1 * full


@pytest.mark.parametrize(("precision", "block"), KINDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_an_altered_byte_is_found(precision: str, block: Block, data: st.DataObject) -> None:
    weight = block_sparse(np.random.default_rng(0), 32, 24, block, 0.5)
    whole = bytearray(pack(weight, block, precision).data.tobytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InputError, match="packed weight cannot be used"):
        PackedWeight(bytes(whole))


@pytest.mark.parametrize("kept", [0, 7, 63, 64, 200, -64, -1])
def test_a_truncated_weight_is_refused(kept: int) -> None:
    whole = pack(np.ones((32, 24), np.float32)).data.tobytes()
    with pytest.raises(InputError, match="packed weight cannot be used"):
        PackedWeight(whole[:kept])


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_with_a_right_checksum_offsets_are_checked_all_the_same(data: st.DataObject) -> None:
    """Whoever alters a weight on purpose can mend the checksum."""
    block = data.draw(st.sampled_from([(4, 1), (16, 1)]))
    packed = pack(block_sparse(np.random.default_rng(0), 32, 24, block, 0.5), block)
    words = packed.data.copy().view(np.uint32)
    place = data.draw(st.integers(3, len(words) - 1).filter(lambda at: at != 15))
    words[place] = data.draw(st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 64)))
    words[15] = zlib.crc32(words[16:].tobytes(), zlib.crc32(words[:15].tobytes()))
    try:
        altered = PackedWeight(words.tobytes())
    except InputError:
        return
    altered.multiply(np.zeros((3, altered.inputs), np.float32))


@pytest.mark.parametrize(
    ("weight", "block", "precision", "message"),
    [
        (np.zeros((10, 8), np.float32), (4, 1), "f32", "10 outputs are no multiple"),
        (np.zeros((8, 8), np.float32), (2, 2), "f32", "no kernel for blocks of 2x2"),
        (np.zeros((16, 8), np.float32), (16, 4), "f32", "no kernel for blocks of 16x4 in f32"),
        (np.zeros((8, 8), np.float32), (4, 1), "f16", "no kernel for blocks of 4x1 in f16"),
        (np.zeros((8, 8), np.int64), (4, 1), "f32", "float matrix"),
        (np.zeros(8, np.float32), (4, 1), "f32", "float matrix"),
        (np.zeros((0, 8), np.float32), (4, 1), "f32", "float matrix"),
        (np.full((4, 8), np.nan, np.float32), (4, 1), "f32", "not finite"),
        (np.full((4, 8), 1e300), (4, 1), "f32", "too large for f32"),
        (np.full((4, 8), 3.4e38, np.float32), (4, 1), "bf16", "too large for bf16"),
        (np.zeros((4, 70_000), np.float32), (4, 1), "int8", "too many for int8"),
    ],
)
def test_what_cannot_be_packed_is_refused(
    weight: npt.NDArray[Any], block: Block, precision: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        pack(weight, block, precision)


@pytest.mark.parametrize("scale", [np.zeros(4), np.ones(3), np.full(4, np.nan)])
def test_a_scale_that_does_not_fit_is_refused(scale: npt.NDArray[Any]) -> None:
    with pytest.raises(InputError, match="scale"):
        pack(np.ones((4, 4), np.float32), (4, 1), "int8", scale=scale)
    with pytest.raises(InputError, match="scale"):
        pack(np.ones((4, 4), np.float32), (4, 1), "f32", scale=np.ones(4))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.epw cannot be read"):
        PackedWeight.load(tmp_path / "missing.epw")


def test_copies_and_pickles_stand_alone() -> None:
    packed = pack(np.eye(4, dtype=np.float32))
    copies = [copy.copy(packed), copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))]
    del packed
    gc.collect()
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    for one in copies:
        np.testing.assert_array_equal(one.multiply(x), x)


def test_the_packed_bytes_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        pack(np.eye(4, dtype=np.float32)).data[0] = 1

"""What a run leaves of the user's own module, loaded again or refused."""

import copy
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from comparing import assert_equal, everything
from shrinking import half, prepared
from torch import Tensor, nn

from edgeprune import load_shrunk, write_back
from edgeprune.errors import InputError
from edgeprune.graph.weights import save_weights
from edgeprune.graph.write_back.check import Answers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a run leaves of an encoder."""
    dense, _, network = prepared("encoder")
    keep, model = half(network), copy.deepcopy(dense)
    graph = network.shrink(keep)
    write_back(model, network, keep, graph).save(tmp_path / "sizes.json")
    save_weights(model, tmp_path / "module.safetensors")
    Answers.of(graph, network.captured.example_inputs).save(tmp_path / "check.safetensors")
    return tmp_path


def test_a_fresh_module_becomes_the_shrunk_one(folder: Path) -> None:
    torch.manual_seed(8)
    _, inputs, network = prepared("encoder")
    fresh = networks.Encoder()
    assert load_shrunk(fresh, folder) is fresh and fresh.training
    assert fresh.heads == 2 and isinstance(fresh.norm1.normalized_shape, tuple)
    assert_equal(fresh, network.shrink(half(network)), inputs)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: networks.Encoder(width=3), "another model"),
        (lambda: nn.Linear(3, 3), "no tensor"),
        (lambda: Scaled(), "off by"),
    ],
)
def test_another_module_is_refused_and_left(folder: Path, build: Any, message: str) -> None:
    model = build()
    before = everything(model)
    with pytest.raises(InputError, match=message):
        load_shrunk(model, folder)
    assert everything(model) == before


class Scaled(networks.Encoder):
    """The same weights, but another function."""

    def forward(self, ids: Tensor) -> Tensor:
        return 1.5 * super().forward(ids)


def test_damaged_and_missing_files_are_told(folder: Path) -> None:
    model = networks.Encoder()
    before = everything(model)
    for name, message in {
        "check.safetensors": "cannot be read",
        "module.safetensors": "cannot be read",
        "sizes.json": "cannot be read",
    }.items():
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(b"torn")
        with pytest.raises(InputError, match=message):
            load_shrunk(model, folder)
        (folder / name).write_bytes(content)
    (folder / "sizes.json").write_text('{"version": 9}')
    with pytest.raises(InputError, match="version 1"):
        load_shrunk(model, folder)
    (folder / "sizes.json").unlink()
    with pytest.raises(InputError, match="edgeprune report"):
        load_shrunk(model, folder)
    assert everything(model) == before


def test_weights_of_other_sizes_are_refused(folder: Path) -> None:
    model, _, _ = prepared("encoder")
    save_weights(model, folder / "module.safetensors")
    with pytest.raises(InputError, match=r"module\.safetensors does not fit"):
        load_shrunk(copy.deepcopy(model), folder)

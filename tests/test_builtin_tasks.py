"""The tasks that come with edgeprune, on data made here or found beside the checkout."""

import gzip
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgeprune.errors import TaskError
from edgeprune.task import LoadedTask, load_task
from edgeprune.task_source import built_in_tasks

REPO = Path(__file__).parents[1]
SHARED = REPO.parent / "shared" / "data"


def in_torch(model: nn.Module) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """``predict`` by the torch model itself."""

    def predict(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        with torch.no_grad():
            return (model(*(torch.from_numpy(value) for value in inputs)).numpy(),)

    return predict


def test_names() -> None:
    assert {"digits", "image-classification", "sentence-embedding"} <= set(built_in_tasks())


# digits ----------------------------------------------------------------------------------------


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LoadedTask:
    pytest.importorskip("sklearn")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return load_task("digits")


def test_digits_trains_once_and_then_reads_its_cache(
    digits: LoadedTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from edgeprune.tasks import digits as module

    monkeypatch.setattr(module, "PHASES", ((8, 1),))  # seconds instead of a minute
    trained = digits.model().state_dict()
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    monkeypatch.setattr(module, "train", lambda *_: pytest.fail("trained again"))
    read = digits.model().state_dict()
    assert all(torch.equal(trained[name], read[name]) for name in trained)


def test_digits_keeps_what_it_is_judged_on_out_of_its_batches(digits: LoadedTask) -> None:
    batches = [batch[0] for batch in digits.batches()]
    assert all(batch.shape == (32, 1, 64, 64) for batch in batches)
    seen = {image.numpy().tobytes() for batch in batches for image in batch}
    asked: list[Any] = []

    def predict(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        asked.append(inputs[0])
        return (np.eye(10)[[0]],)

    quality = digits.quality(predict)
    assert len(asked) == 500 and all(image.shape == (1, 1, 64, 64) for image in asked)
    assert not seen & {image.tobytes() for image in asked}
    assert 0.05 < quality < 0.15  # always saying zero
    again = [batch[0] for batch in digits.batches()]
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))


@pytest.mark.slow
def test_the_dense_digits_network_is_good(digits: LoadedTask) -> None:
    assert digits.quality(in_torch(digits.model())) > 0.95


# image classification --------------------------------------------------------------------------

FACTORY = """
import torch

def build():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    )

def broken():
    raise RuntimeError("no such net")

def number():
    return 3
"""


@pytest.fixture
def images(tmp_path: Path) -> dict[str, str]:
    """Settings of a task of 8x8 images, dark or bright, and a network that is right on them."""
    (tmp_path / "net_factory.py").write_text(FACTORY)
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    pixels = rng.integers(0, 100, (40, 8, 8, 3)) + 150 * labels[:, None, None, None]
    np.savez(tmp_path / "images.npz", x=pixels.astype(np.uint8), y=labels)
    state = {
        "0.weight": torch.full((4, 3, 3, 3), 1.0),
        "0.bias": torch.zeros(4),
        "3.weight": torch.stack([torch.zeros(144), torch.full((144,), 1.0)]),
        "3.bias": torch.tensor([144 * 27 * 0.5, 0.0]),
    }
    save_file(state, tmp_path / "net.safetensors")
    torch.save(state, tmp_path / "net.pt")
    return {
        "factory": f"{tmp_path / 'net_factory.py'}:build",
        "weights": str(tmp_path / "net.safetensors"),
        "images": str(tmp_path / "images.npz"),
        "test": str(tmp_path / "images.npz"),
    }


@pytest.mark.parametrize("weights", ["net.safetensors", "net.pt"])
def test_images_from_an_npz(images: dict[str, str], tmp_path: Path, weights: str) -> None:
    task = load_task("image-classification", {**images, "weights": str(tmp_path / weights)})
    assert task.quality(in_torch(task.model())) == 1.0
    assert task.example_inputs()[0].shape == (1, 3, 8, 8)
    batches = [batch[0] for batch in task.batches()]
    assert sum(len(batch) for batch in batches) == 40
    assert all(batch.min() >= 0 and batch.max() <= 1 for batch in batches)


def test_mean_and_deviation_are_applied_by_channel(images: dict[str, str]) -> None:
    plain = load_task("image-classification", images).example_inputs()[0]
    normal = {**images, "mean": "0.1,0.2,0.3", "std": "0.5,0.25,1"}
    scaled = load_task("image-classification", normal).example_inputs()[0]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.1, 0.2, 0.3], [0.5, 0.25, 1.0]))
    torch.testing.assert_close(scaled, (plain - mean) / std)


def test_images_from_a_folder_of_classes(images: dict[str, str], tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    with np.load(images["images"]) as data:
        for number, (pixels, label) in enumerate(zip(data["x"], data["y"], strict=True)):
            folder = tmp_path / "folder" / ("bright" if label else "dark")
            folder.mkdir(parents=True, exist_ok=True)
            image.fromarray(pixels).resize((16, 12)).save(folder / f"{number}.png")
    folder = str(tmp_path / "folder")
    # Classes are numbered in sorted order: bright 0, dark 1, the other way round than the network.
    task = load_task(
        "image-classification", {**images, "images": folder, "test": folder, "size": "8"}
    )
    assert task.quality(in_torch(task.model())) == 0.0
    (tmp_path / "folder" / "loose.png").write_bytes(b"")
    with pytest.raises(TaskError, match="no class folder"):
        load_task("image-classification", {**images, "test": folder, "size": "8"})


def as_file(task: LoadedTask, path: Path) -> None:
    """The task's model in a file of the kind that the name says."""
    model = task.model()
    if path.suffix == ".pt2":
        torch.export.save(torch.export.export(model, task.example_inputs()), path)
        return
    if path.stem == "channels_last":
        turn = nn.Module()
        turn.net = model
        turn.forward = lambda x: turn.net(x.permute(0, 3, 1, 2))  # type: ignore[method-assign]
        inputs = tuple(x.permute(0, 2, 3, 1) for x in task.example_inputs())
        torch.onnx.export(turn, inputs, str(path), dynamo=False)
        return
    torch.onnx.export(model, task.example_inputs(), str(path), dynamo=False)


def first_output(model: nn.Module) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """``predict`` by a module that returns a tuple."""

    def predict(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        with torch.no_grad():
            return (model(*(torch.from_numpy(value) for value in inputs))[0].numpy(),)

    return predict


@pytest.mark.parametrize("name", ["net.onnx", "channels_last.onnx", "net.pt2"])
@pytest.mark.filterwarnings("ignore")
def test_images_and_a_model_that_is_one_file(
    images: dict[str, str], tmp_path: Path, name: str
) -> None:
    pytest.importorskip("onnx")
    as_file(load_task("image-classification", images), tmp_path / name)
    data = {key: images[key] for key in ("images", "test")}
    task = load_task("image-classification", {**data, "model": str(tmp_path / name)})
    last = name.startswith("channels_last")
    assert task.example_inputs()[0].shape == ((1, 8, 8, 3) if last else (1, 3, 8, 8))
    assert task.quality(first_output(task.model())) == 1.0
    assert sum(len(batch[0]) for batch in task.batches()) == 40


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "{folder}/net.onnx"}, "one of two ways"),
        ({"factory": ""}, "one of two ways"),
        ({"factory": "build"}, "module:function"),
        ({"factory": "no_such_module_here:f"}, "cannot be imported"),
        ({"factory": "{folder}/net_factory.py:bild"}, "did you mean 'build'"),
        ({"factory": "{folder}/net_factory.py:broken"}, "no such net"),
        ({"factory": "{folder}/net_factory.py:number"}, "no torch.nn.Module"),
        ({"weights": "{folder}/none.pt"}, "does not exist"),
        ({"weights": "{folder}/net_factory.py"}, "not a weights file|more than tensors"),
        ({"weights": "{folder}/whole.pt"}, "more than tensors"),
        ({"weights": "{folder}/other.safetensors"}, "no weight '0.bias'"),
        ({"images": "{folder}/none"}, "do not exist"),
        ({"test": "{folder}/net.pt"}, "no array 'x'|not an .npz"),
        ({"test": "{folder}/nolabels.npz"}, "no array 'y'"),
        ({"test": "{folder}/float.npz"}, "not uint8"),
        ({"size": "9"}, "set size=0"),
        ({"mean": "a"}, "write numbers"),
        ({"mean": "0.1,0.2"}, "2 numbers"),
        ({"std": "0"}, "above zero"),
    ],
)
def test_wrong_images_weights_and_factories_are_named(
    images: dict[str, str], tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    save_file({"0.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "other.safetensors")
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    np.savez(tmp_path / "nolabels.npz", x=np.zeros((2, 8, 8, 3), np.uint8))
    np.savez(tmp_path / "float.npz", x=np.zeros((2, 8, 8, 3)), y=np.zeros(2, int))
    given = {key: value.format(folder=tmp_path) for key, value in changes.items()}
    with pytest.raises(TaskError, match=words) as caught:
        load_task("image-classification", {**images, **given}).model()
    assert "\n" not in str(caught.value)


# sentence embedding ----------------------------------------------------------------------------


@pytest.fixture
def sentences(tmp_path: Path) -> dict[str, str]:
    """Settings of a task with a tiny random encoder and a vocabulary of a few words."""
    transformers = pytest.importorskip("transformers")
    words = [
        "a",
        "the",
        "cat",
        "dog",
        "bird",
        "sees",
        "hears",
        "likes",
        "big",
        "small",
        "red",
        "blue",
        "runs",
    ]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
    )
    transformers.BertModel(config).save_pretrained(folder)
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(words, rng.integers(1, 20))) for _ in range(200)]
    with gzip.open(tmp_path / "text.txt.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    rows = [f"{n % 5}\t{lines[n]}\t{lines[n + 1]}" for n in range(20)]
    (tmp_path / "pairs.tsv").write_text("\n".join(["score\tsentence1\tsentence2", *rows]))
    return {
        "model": str(folder),
        "sentences": str(tmp_path / "text.txt.gz"),
        "pairs": str(tmp_path / "pairs.tsv"),
        "sequence": "16",
    }


def test_sentences_come_in_batches_of_like_length(sentences: dict[str, str]) -> None:
    task = load_task("sentence-embedding", sentences)
    batches = list(task.batches())
    assert len(batches) == 200 // 32
    lengths = {ids.shape[1] for ids, _ in batches}
    assert len(lengths) > 2 and max(lengths) <= 16
    for ids, mask in batches:
        assert ids.shape == mask.shape and ids.dtype == mask.dtype == torch.int64
        assert mask.sum() > 0.6 * mask.numel()  # little padding
        assert bool(((ids == 0) == (mask == 0)).all())
    again = list(task.batches())
    assert all(torch.equal(a[0], b[0]) for a, b in zip(batches, again, strict=True))


def test_embeddings_do_not_depend_on_padding_and_have_length_one(
    sentences: dict[str, str],
) -> None:
    task = load_task("sentence-embedding", sentences)
    model = task.model()
    ids, mask = task.example_inputs()
    assert ids.shape == mask.shape == (1, 16)
    words = int(mask.sum())
    with torch.no_grad():
        padded, bare = model(ids, mask), model(ids[:, :words], mask[:, :words])
    torch.testing.assert_close(padded, bare, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(padded.norm(dim=1), torch.ones(1))


def test_quality_is_the_rank_correlation_at_the_deployed_shape(
    sentences: dict[str, str],
) -> None:
    task = load_task("sentence-embedding", sentences)
    shapes = set()

    def predict(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        shapes.add(inputs[0].shape)
        return (np.ones((1, 4), np.float32),)

    assert task.quality(predict) == 0.0  # an encoder that says the same of everything
    assert shapes == {(1, 16)}
    assert -1 <= task.quality(in_torch(task.model())) <= 1


@pytest.mark.parametrize(
    ("key", "content", "words"),
    [
        ("pairs", "score\tsentence1\n1\ta", "no column 'sentence2'"),
        ("pairs", "score\tsentence1\tsentence2\n1\ta", "line 2: 2 columns"),
        ("pairs", "score\tsentence1\tsentence2\nhigh\ta\tb", "'high' is not a number"),
        ("pairs", "score\tsentence1\tsentence2\n1\ta\tb\n1\ta\tb", "different score"),
        ("pairs", None, "cannot read"),
        ("sentences", "one\ntwo\n", "give at least"),
        ("sentences", None, "cannot read"),
        ("model", None, "config.json"),
    ],
)
def test_wrong_text_files_are_named(
    sentences: dict[str, str], tmp_path: Path, key: str, content: str | None, words: str
) -> None:
    path = tmp_path / "other"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TaskError, match=words):
        load_task("sentence-embedding", {**sentences, key: str(path)})


def test_a_sequence_longer_than_the_models_positions(sentences: dict[str, str]) -> None:
    with pytest.raises(TaskError, match="positions end at 24"):
        load_task("sentence-embedding", {**sentences, "sequence": "40"}).model()


def test_a_model_folder_that_cannot_be_loaded(sentences: dict[str, str]) -> None:
    (Path(sentences["model"]) / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(TaskError, match="cannot load") as caught:
        load_task("sentence-embedding", sentences).model()
    assert "\n" not in str(caught.value)


# development tasks -----------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the development data")
def test_the_cifar_task_reads_the_development_data() -> None:
    task = load_task(REPO / "tools" / "tasks" / "cifar_resnet.py", {"net": "resnet20"})
    assert 0.90 < task.quality(in_torch(task.model())) < 0.92
    with pytest.raises(TaskError, match="resnet20"):
        load_task(REPO / "tools" / "tasks" / "cifar_resnet.py", {"net": "resnet18"})


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the development data")
def test_cifar_batches_are_whole_normalised_and_repeatable() -> None:
    task = load_task(REPO / "tools" / "tasks" / "cifar_resnet.py", {"net": "resnet20"})
    first, second = (list(islice(task.batches(), 70)) for _ in range(2))
    for (one,), (other,) in zip(first, second, strict=True):
        assert one.shape == (64, 3, 32, 32) and abs(float(one.mean())) < 0.5
        assert torch.equal(one, other)


@pytest.mark.parametrize("inside", ["", "onnx"])
@pytest.mark.filterwarnings("ignore")
def test_an_encoder_that_is_an_onnx_file(
    sentences: dict[str, str], tmp_path: Path, inside: str
) -> None:
    """In the model's folder, or in one inside it as such models are published."""
    pytest.importorskip("onnx")
    task = load_task("sentence-embedding", sentences)
    dense, example = task.model(), task.example_inputs()
    file = Path(sentences["model"], inside, "model.onnx")
    file.parent.mkdir(exist_ok=True)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    open_ = {name: {0: "batch", 1: "sequence"} for name in names}

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = dense.encoder

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor) -> Any:
            return self.bert(input_ids=ids, attention_mask=mask, token_type_ids=kinds)[0]

    torch.onnx.export(
        Encoder().eval(),
        (*example, torch.zeros_like(example[0])),
        str(file),
        dynamo=False,
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes=open_,
    )
    read = load_task("sentence-embedding", {**sentences, "model": str(file)}).model()
    for batch in islice(task.batches(), 3):
        with torch.no_grad():
            torch.testing.assert_close(read(*batch), dense(*batch), rtol=1e-4, atol=1e-5)


def test_an_onnx_file_without_its_tokenizer(sentences: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"no config\.json"):
        load_task("sentence-embedding", {**sentences, "model": str(tmp_path / "a" / "m.onnx")})

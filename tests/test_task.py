"""The task contract at its border: what is wrong is named in one line, what is right passes."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeprune.errors import TaskError, UnavailableError
from edgeprune.task import LoadedTask, load_task

GOOD = """
import numpy as np
import torch

class Task:
    quality_name = "closeness"

    def __init__(self, width: int = 4, scale: float = 1.0, shuffle: bool = False):
        self.width, self.scale, self.shuffle = width, scale, shuffle

    def model(self):
        return torch.nn.Linear(self.width, 2).train()

    def example_inputs(self):
        return (torch.zeros(1, self.width),)

    def batches(self):
        return [(torch.ones(8, self.width),), (torch.ones(3, self.width),)]

    def quality(self, predict):
        return float(predict((np.ones((1, self.width), np.float32),))[0].sum())
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the good task with parts of its text replaced."""

    def writer(*changes: tuple[str, str], name: str = "mytask.py") -> Path:
        text = GOOD
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text)
        return path

    return writer


def use(task: LoadedTask) -> None:
    """Everything a run asks of a task."""
    task.model()
    list(task.batches())
    task.quality(lambda inputs: (np.zeros((1, 2), np.float32),))


def test_a_good_task_passes_and_its_model_is_in_eval_mode(write: Callable[..., Path]) -> None:
    task = load_task(write(), {"width": "6", "scale": "0.5", "shuffle": "yes"})
    use(task)
    assert task.name == "mytask" and task.quality_name == "closeness"
    assert not task.model().training
    assert [batch[0].shape for batch in task.batches()] == [(8, 6), (3, 6)]
    assert task.quality(lambda inputs: (inputs[0] * 2,)) == 12


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("def model(self)", "def mode(self)", "no model()"),
        ('quality_name = "closeness"', "quality_name = 3", "quality_name"),
        ("class Task:", "class Other:", "no class Task"),
        ("import torch\n", "import troch\n", "ModuleNotFoundError"),
        ("class Task:", "class Task", "line 5"),
        ("torch.nn.Linear(self.width, 2).train()", "3", "not a torch.nn.Module"),
        ("2).train()", "2).double()", "float64; use float32"),
        ("return torch.nn", "raise OSError('no\\nfile'); torch.nn", "no file (mytask.py, line 12)"),
        ("return (torch.zeros(1, self.width),)", "return torch.zeros(1, 4)", "not a tuple"),
        ("return (torch.zeros(1, self.width),)", "return ()", "empty tuple"),
        ("return (torch.zeros(1, self.width),)", "return (1,)", "no tensor"),
        ("torch.zeros(1, self.width)", "torch.full((1, 4), float('nan'))", "not finite"),
        ("return [(torch", "return []; [(torch", "no batch"),
        ("return [(torch", "return None; [(torch", "not an iterable"),
        ("[(torch.ones(8, self.width),)", "[torch.ones(8, self.width)", "not a tuple"),
        ("torch.ones(3, self.width)", "torch.ones(3, 5)", "(3, 5) disagrees with float32 (1, 4)"),
        ("torch.ones(3, self.width)", "torch.ones(3, 4).long()", "int64 (3, 4) disagrees"),
        ("torch.ones(3, self.width)", "torch.ones(4)", "(4,) disagrees"),
        ("(torch.ones(3, self.width),)", "(torch.ones(3, 4), torch.ones(3, 4))", "holds 2 tensors"),
        ("return float(", "return float('nan') + float(", "returned nan"),
        ("return float(", "return None; float(", "not a number"),
        ("return float(", "return str(", "'str', not a number"),
        ("return float(", "1 / 0; float(", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(
    write: Callable[..., Path], old: str, new: str, words: str
) -> None:
    path = write((old, new))
    with pytest.raises(TaskError) as caught:
        use(load_task(path))
    message = str(caught.value)
    assert words in message and "\n" not in message


def test_weights_that_are_not_finite_are_named(write: Callable[..., Path]) -> None:
    broken = "net = torch.nn.Linear(4, 2); net.bias.data[1] = float('inf'); return net"
    path = write(("return torch.nn.Linear(self.width, 2).train()", broken))
    with pytest.raises(TaskError, match="'bias' that are not finite"):
        load_task(path).model()


def test_an_error_of_the_runtime_is_not_blamed_on_the_task(write: Callable[..., Path]) -> None:
    def predict(inputs: object) -> tuple[np.ndarray, ...]:
        raise UnavailableError("device went away")

    with pytest.raises(UnavailableError, match="device went away"):
        load_task(write()).quality(predict)


def test_token_batches_may_have_any_length_and_images_may_not(write: Callable[..., Path]) -> None:
    tokens = ("torch.zeros(1, self.width)", "torch.zeros(1, 4).long()")
    longer = ("torch.ones(3, self.width)", "torch.ones(3, 9).long()")
    shorter = ("torch.ones(8, self.width)", "torch.ones(8, 2).long()")
    assert len(list(load_task(write(tokens, longer, shorter)).batches())) == 2
    image = ("torch.zeros(1, self.width)", "torch.zeros(1, 3, 8, 8)")
    other = ("torch.ones(8, self.width)", "torch.ones(8, 3, 9, 8)")
    with pytest.raises(TaskError, match="disagrees"):
        list(load_task(write(image, other, name="images.py")).batches())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"widht": "3"}, "did you mean 'width'"),
        ({"colour": "3"}, "known: scale, shuffle, width"),
        ({"width": "three"}, "'width' is 'three', not a whole number"),
        ({"scale": "big"}, "not a number"),
        ({"shuffle": "maybe"}, "not true or false"),
    ],
)
def test_wrong_settings_name_the_accepted_ones(
    write: Callable[..., Path], settings: dict[str, str], words: str
) -> None:
    with pytest.raises(TaskError) as caught:
        load_task(write(), settings)
    assert words in str(caught.value)


def test_a_missing_setting_is_named(write: Callable[..., Path]) -> None:
    with pytest.raises(TaskError, match="--set width="):
        load_task(write(("width: int = 4, scale: float = 1.0", "width: int, scale: float = 1.0")))


def test_names_and_paths_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="did you mean 'digits'"):
        load_task("digit")
    with pytest.raises(TaskError, match="does not exist"):
        load_task(tmp_path / "none.py")


def test_a_task_may_import_its_neighbours_and_the_key_follows_them(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    neighbour = tmp_path / "neighbour_of_task.py"
    neighbour.write_text("BATCH = 8\n")
    path = write(
        ("import torch\n", "import torch\nfrom neighbour_of_task import BATCH\n"),
        ("torch.ones(8,", "torch.ones(BATCH,"),
    )
    task = load_task(path)
    assert next(iter(task.batches()))[0].shape[0] == 8
    assert load_task(path).key == task.key
    neighbour.write_text("BATCH = 8  # changed\n")
    assert load_task(path).key != task.key


def test_the_key_changes_with_source_settings_and_named_files(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    data = tmp_path / "data.txt"
    data.write_text("one")
    change = ("shuffle: bool = False", "shuffle: str = ''")
    path = write(change)
    first = load_task(path, {"shuffle": str(data)}).key
    assert load_task(path, {"shuffle": str(data)}).key == first
    data.write_text("two")
    second = load_task(path, {"shuffle": str(data)}).key
    third = load_task(path, {"shuffle": str(data), "width": "5"}).key
    path.write_text(path.read_text() + "# changed\n")
    fourth = load_task(path, {"shuffle": str(data)}).key
    assert len({first, second, third, fourth}) == 4


def test_a_quality_in_a_tensor_or_array_counts(write: Callable[..., Path]) -> None:
    for value in ("torch.tensor(0.5)", "np.float32(0.5)", "np.array(0.5)"):
        task = load_task(write(("return float(", f"return {value}; float("), name="scalar.py"))
        assert task.quality(lambda inputs: inputs) == 0.5


def test_the_readme_shows_a_task_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    (tmp_path / "mytask.py").write_text(textwrap.dedent(code))
    monkeypatch.chdir(tmp_path)
    net = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
    torch.save(net.state_dict(), "net.pt")
    rng = np.random.default_rng(0)
    np.save("train.npy", rng.normal(size=(64, 16)))
    np.save("test.npy", rng.normal(size=(10, 16)).astype(np.float32))
    task = load_task("mytask.py")
    with torch.no_grad():
        model = task.model()
        answers = model(torch.from_numpy(np.load("test.npy"))).argmax(1).numpy()
        np.save("labels.npy", answers)
        assert len(list(task.batches())) == 2
        assert task.quality(lambda x: (model(torch.from_numpy(x[0])).numpy(),)) == 1.0

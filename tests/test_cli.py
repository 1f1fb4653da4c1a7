"""The command line: bad input is one line and a documented exit code, results go to stdout."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeprune import pipeline, stages
from edgeprune.cli.app import run
from edgeprune.errors import InfeasibleTarget, TargetMissed, UnavailableError
from edgeprune.request import CompressRequest, Goal
from edgeprune.workspace import Workspace

GOOD = ["compress", "--task", "digits", "--device", "x86", "--target-speedup", "2x"]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder of its own."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[CompressRequest]:
    """What the pipeline was asked for; it then finds a target out of reach."""
    requests: list[CompressRequest] = []

    def compress(request: CompressRequest) -> dict[str, object]:
        requests.append(request)
        raise InfeasibleTarget("target 2x is out of reach")

    monkeypatch.setattr(pipeline, "compress", compress)
    return requests


TASK = """
import torch
class Task:
    quality_name = "q"
    def model(self): return torch.nn.Linear(2, 2)
    def example_inputs(self): return (torch.zeros(1, 2),)
    def batches(self): return [(torch.zeros(4, 2),)]
    def quality(self, predict): return 1.0
"""

MODELS = """
class Branch(torch.nn.Module):
    def forward(self, x): return x if x.sum() > 0 else -x
class Fixed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(2, 8), torch.nn.Linear(8, 2)
    def forward(self, x): return self.down(self.up(x).relu().reshape(1, 8))
"""


def task(model: str, setting: str = "") -> str:
    """A task with a model of its own, and batches enough to hold some back."""
    made = f"\n        model = {model}\n        {setting}\n        return model"
    text = TASK.replace("return [(torch.zeros(4, 2),)]", "return [(torch.rand(4, 2),)] * 16")
    text = text.replace(" return torch.nn.Linear(2, 2)", made)
    return text.replace("class Task", f"{MODELS}\nclass Task")


# Arguments, what stands in files of the working folder, exit code, words of the message.
BAD_INPUTS: list[tuple[list[str], dict[str, str], int, str]] = [
    (["cmpress"], {}, 2, "Did you mean 'compress'"),
    ([*GOOD, "--target-laency", "3ms"], {}, 2, "--target-laency"),
    ([*GOOD, "extra"], {}, 2, "extra"),
    ([*GOOD, "--task"], {}, 2, "--task"),
    (GOOD[:1] + GOOD[3:], {}, 2, "--task is missing"),
    (GOOD[:3] + GOOD[5:], {}, 2, "--device is missing"),
    (GOOD[:5], {}, 2, "no target given"),
    ([*GOOD[:5], "--target-latency", "0ms"], {}, 2, "not above zero"),
    ([*GOOD[:5], "--target-latency", "10"], {}, 2, "no unit"),
    ([*GOOD[:5], "--target-latency", "soon"], {}, 2, "not a number"),
    ([*GOOD[:5], "--target-speedup", "0"], {}, 2, "not above 1x"),
    ([*GOOD[:5], "--target-speedup", "1000x"], {}, 2, "beyond reach"),
    ([*GOOD, "--target-speedup", "2.0"], {}, 2, "given twice"),
    ([*GOOD, "--recovery", "-5"], {}, 2, "negative"),
    ([*GOOD, "--recovery", "long"], {}, 2, "none, 25 or 90s"),
    ([*GOOD, "--recipe", "defualt"], {}, 2, "did you mean 'default'"),
    ([*GOOD, "--recipe", "r.yaml"], {"r.yaml": "criterio: taylor\n"}, 2, "'criterion'"),
    ([*GOOD, "--recipe", "r.yaml"], {"r.yaml": "search: {gap: 2}\n"}, 2, "at most 0.5"),
    ([*GOOD, "--recipe", "r.yaml"], {"r.yaml": "search: [\n"}, 2, "not valid YAML"),
    ([*GOOD, "--set", "verbose"], {}, 2, "not key=value"),
    ([*GOOD, "--set", "size=3"], {}, 2, "no setting 'size'"),
    (["compress"], {"edgeprune.yaml": "taks: digits\n"}, 2, "did you mean 'task'"),
    (["compress"], {"edgeprune.yaml": "[1]\n"}, 2, "edgeprune.yaml"),
    ([*GOOD, "--device", "x68"], {}, 2, "did you mean 'x86'"),
    ([*GOOD, "--device", "d.yaml"], {}, 2, "does not exist"),
    ([*GOOD, "--device", "d.yaml"], {"d.yaml": "version: 1\nruntime: x\n"}, 2, "'transport'"),
    (
        [*GOOD, "--device", "d.yaml"],
        {"d.yaml": "version: 1\ntransport: local\nruntime: opnvino\n"},
        2,
        "did you mean 'openvino'",
    ),
    (
        [*GOOD, "--device", "d.yaml"],
        {"d.yaml": "version: 1\ntransport: pigeon\nruntime: openvino\n"},
        2,
        "pigeon",
    ),
    ([*GOOD, "--task", "digit"], {}, 2, "did you mean 'digits'"),
    ([*GOOD, "--task", "t.py"], {}, 2, "does not exist"),
    ([*GOOD, "--task", "t.py"], {"t.py": "class Task\n"}, 2, "t.py, line 1"),
    ([*GOOD, "--task", "t.py"], {"t.py": "class Taks: pass\n"}, 2, "no class Task"),
    ([*GOOD, "--out", "full"], {"full/thesis.txt": "precious"}, 2, "thesis.txt"),
    (
        [*GOOD, "--out", "run"],
        {"run/run.json": '{"format": 1, "task": "other", "settings": {}, "device": "x86"}'},
        2,
        "belongs to task 'other'",
    ),
    (
        [*GOOD, "--task", "t.py"],
        {"t.py": TASK.replace("torch.nn.Linear(2, 2)", "torch.nn.Linear(2, 2).half()")},
        2,
        "float16; use float32",
    ),
    (
        [*GOOD, "--task", "t.py"],
        {"t.py": TASK.replace("(torch.zeros(4, 2),)", "(torch.zeros(4, 3),)")},
        2,
        "disagrees",
    ),
    ([*GOOD, "--recipe", "r.yaml"], {"r.yaml": "criterion: taylr\n"}, 2, "did you mean 'taylor'"),
    ([*GOOD, "--recipe", "r.yaml"], {"r.yaml": "search: {kinds: [haeds]}\n"}, 2, "'heads'"),
    (
        [*GOOD, "--task", "t.py"],
        {"t.py": task("torch.nn.Linear(2, 2)", setting="model.weight.data[0, 0] = torch.nan")},
        2,
        "not finite",
    ),
    ([*GOOD, "--task", "t.py"], {"t.py": task("Branch()")}, 2, "t.py"),
    ([*GOOD, "--task", "t.py"], {"t.py": task("Fixed()")}, 2, "of exactly the deployed sizes"),
    ([*GOOD, "--task", "t.py"], {"t.py": task("torch.nn.Linear(2, 2)")}, 2, "nothing of this"),
    (["profile", "--task", "digits"], {}, 2, "--device is missing"),
    (["profile", "--task", "digit", "--device", "x86"], {}, 2, "did you mean 'digits'"),
    (["report", "nowhere"], {}, 2, "not a folder"),
    (["report", "empty"], {"empty/x": ""}, 2, "report.json"),
    (["report", "open"], {"open/run.json": "{}"}, 2, "not finished"),
    (["report", "bad"], {"bad/report.json": '{"dense'}, 2, "damaged"),
    (["report", "bad"], {"bad/report.json": '{"a": 1}'}, 2, "not a report"),
]


@pytest.mark.parametrize(("arguments", "files", "code", "words"), BAD_INPUTS)
def test_bad_input_is_one_line_and_an_exit_code(
    arguments: list[str],
    files: dict[str, str],
    code: int,
    words: str,
    working_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text in files.items():
        path = working_folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert run(arguments) == code
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("edgeprune: ")]
    assert len(lines) == 1 and captured.err.endswith(lines[0] + "\n")
    assert words in lines[0]
    assert "Traceback" not in captured.err and captured.out == ""


def test_a_run_folder_in_use_is_refused(
    working_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = {"task": "digits", "settings": {}, "device": "x86"}
    with Workspace(working_folder / "run", identity):
        assert run([*GOOD, "--out", "run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"in use by process {os.getpid()}" in line


def test_options_become_a_request(asked: list[CompressRequest]) -> None:
    extra = ["--target-latency", "5ms", "--recovery", "90s", "--out", "o", "--dry-run"]
    assert run([*GOOD, *extra, "--set", "a=b=c"]) == 3
    assert asked == [
        CompressRequest(
            task="digits",
            device="x86",
            goals=(Goal("latency_ms", 5.0), Goal("speedup", 2.0)),
            recipe="default",
            recovery_minutes=1.5,
            out=Path("o"),
            dry_run=True,
            settings={"a": "b=c"},
        )
    ]


def test_options_left_out_come_from_the_working_folder(
    asked: list[CompressRequest], working_folder: Path
) -> None:
    (working_folder / "edgeprune.yaml").write_text(
        "task: my/task.py\ndevice: x86\ntarget-speedup: 2x\ntarget_latency: [3ms, 800us]\n"
        "recovery: 10\nset: {size: 3, flip: true, name: cat}\n"
    )
    assert run(["compress"]) == 3
    assert run(["compress", "--target-speedup", "4", "--recovery", "none", "--set", "size=5"]) == 3
    first, second = asked
    assert first.goals == (Goal("latency_ms", 3.0), Goal("latency_ms", 0.8), Goal("speedup", 2.0))
    assert (first.recovery_minutes, first.out) == (10.0, Path("runs/task-x86"))
    assert first.settings == {"size": "3", "flip": "true", "name": "cat"}
    assert second.goals == (Goal("speedup", 4.0),) and second.recovery_minutes is None
    assert second.settings == {"size": "5", "flip": "true", "name": "cat"}


def test_the_recipe_says_how_long_recovery_takes_when_nobody_does(
    asked: list[CompressRequest], working_folder: Path
) -> None:
    (working_folder / "r.yaml").write_text("recovery: {minutes: 7}\n")
    assert run([*GOOD, "--recipe", "r.yaml"]) == 3
    assert run(GOOD) == 3
    assert [request.recovery_minutes for request in asked] == [7.0, None]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UnavailableError("the device went away"), 4, "edgeprune: the device went away"),
        (InfeasibleTarget("out of reach"), 3, "edgeprune: out of reach"),
        (ZeroDivisionError("by\nzero"), 1, "ZeroDivisionError: by zero; --debug shows where"),
        (OSError(28, "No space left on device"), 2, "disk is full"),
        (MemoryError(), 1, "out of memory"),
        (KeyboardInterrupt(), 130, "goes on where it stopped"),
    ],
)
def test_failures_have_their_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    words: str,
) -> None:
    def compress(request: CompressRequest) -> dict[str, object]:
        raise error

    monkeypatch.setattr(pipeline, "compress", compress)
    assert run(GOOD) == code
    shown = capsys.readouterr().err
    assert words in shown and "Traceback" not in shown


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compress(request: CompressRequest) -> dict[str, object]:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(pipeline, "compress", compress)
    assert run([*GOOD, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_missed_target_shows_its_report_and_exits_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], working_folder: Path
) -> None:
    record = {"task": "t", "device": "x86", "dense": {}, "results": [], "threads": 1}

    def compress(request: CompressRequest) -> dict[str, object]:
        request.out.mkdir(parents=True)
        (request.out / "report.json").write_text(json.dumps(record))
        raise TargetMissed("missed 2x")

    monkeypatch.setattr(pipeline, "compress", compress)
    assert run([*GOOD, "--json"]) == 3
    captured = capsys.readouterr()
    assert json.loads(captured.out) == record
    assert "edgeprune: missed 2x" in captured.err


def test_help_shows_examples_before_options(capsys: pytest.CaptureFixture[str]) -> None:
    commands = ("compress", "inspect", "profile", "report")
    for arguments in ([], ["--help"], *([name, "-h"] for name in commands)):
        assert run(arguments) == 0
        out = capsys.readouterr().out
        assert 0 < out.index("Examples:") < out.index("Options:")


def test_profile_shows_what_is_reachable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"dense_ms": 9.0, "fastest_ms": 2.0, "most_speedup": 4.5, "structures": 3}
    asked = []

    def profile_task(*arguments: object) -> dict[str, object]:
        asked.append(arguments)
        return {**found, "table": "t.jsonl", "records": 70}

    monkeypatch.setattr(stages.profile, "profile_task", profile_task)
    assert run(["profile", "--task", "digits", "--device", "x86", "--set", "a=1"]) == 0
    assert asked == [("digits", "x86", "default", {"a": "1"})]
    shown = capsys.readouterr().out
    assert "dense 9.000 ms, reachable down to 2.000 ms (4.50x)" in shown and "t.jsonl" in shown


def test_doctor_finds_the_device_and_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.metadata

    installed = importlib.metadata.version

    def version(name: str) -> str:
        if name == "pillow":
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert run(["doctor", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["pillow"]["state"] == "missing"
    assert checks["pillow"]["fix"] == "pip install 'edgeprune[image]'"
    assert checks["python"]["state"] == checks["torch"]["state"] == "ok"
    assert "target x86" in checks
    assert run(["doctor"]) == 0
    assert "pip install 'edgeprune[image]'" in capsys.readouterr().out


def program(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgeprune.cli.app", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **variables}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A shell that started the tests in the background had them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_ctrl_c_exits_with_130_and_says_that_the_run_goes_on(working_folder: Path) -> None:
    (working_folder / "slow.py").write_text(
        "import time\n"
        + TASK.replace("return torch.nn.Linear(2, 2)", "print('in', flush=True); time.sleep(60)")
    )
    process = program(*GOOD, "--task", "slow.py")
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "goes on where it stopped" in err and "Traceback" not in err


def test_a_reader_that_leaves_is_no_fault() -> None:
    process = program("--help")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    assert process.wait(30) in (0, 1)


def test_completion_knows_targets_and_tasks() -> None:
    asked = {"_EDGEPRUNE_COMPLETE": "complete_bash", "COMP_CWORD": "3"}
    for option, start, expected in (("--device", "x", "x86"), ("--task", "dig", "digits")):
        words = f"edgeprune compress {option} {start}"
        out, _ = program(COMP_WORDS=words, **asked).communicate(timeout=30)
        assert out.split() == [expected]


def test_no_colour_codes_reach_a_pipe() -> None:
    out, err = program("doctor", FORCE_COLOR="", NO_COLOR="1").communicate(timeout=60)
    assert "\x1b" not in out + err and "python" in out

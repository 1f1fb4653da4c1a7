"""The program beside an artifact runs without edgeprune and finds the same latency."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.report.app_program import write_app_program
from edgeprune.runtimes import CompileOptions, runtime

# Runs a program in a process in which importing edgeprune fails.
WITHOUT = "import runpy, sys; sys.modules['edgeprune'] = None; runpy.run_path(sys.argv[1])"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    openvino = pytest.importorskip("openvino")
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 64, 3), *(nn.Conv2d(64, 64, 3, padding=1) for _ in range(8))]
    example = torch.ones(1, 8, 40, 40)
    model = openvino.convert_model(nn.Sequential(*layers).eval(), example_input=example)
    model.reshape([1, 8, 40, 40])
    path = tmp_path_factory.mktemp("artifact") / "model.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def program_ms(program: Path) -> float:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert "(1, 64, 38, 38)" in done.stdout
    found = re.search(r"median ([\d.]+) ms", done.stdout)
    assert found
    return float(found[1])


def our_ms(artifact: Path, inputs: np.ndarray) -> float:
    session = runtime("openvino").load(artifact, CompileOptions(threads=1))
    session.set_inputs((inputs,))
    times = []
    end = time.perf_counter() + 1
    while time.perf_counter() < end:
        start = time.perf_counter()
        session.infer_once()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times[len(times) // 5 :]))


def test_it_is_short_runs_alone_and_finds_the_same_latency(artifact: Path) -> None:
    inputs = np.random.default_rng(0).normal(size=(1, 8, 40, 40)).astype(np.float32)
    options = CompileOptions(threads=1)
    program = write_app_program(artifact, [inputs], runtime("openvino"), options, seconds=1)
    assert 10 <= len(program.read_text().splitlines()) <= 30
    # Others may disturb any single try; the quietest of each is compared.
    theirs, ours = zip(
        *((program_ms(program), our_ms(artifact, inputs)) for _ in range(4)), strict=True
    )
    assert min(theirs) == pytest.approx(min(ours), rel=0.25)


def test_threads_and_precision_are_those_of_the_target(artifact: Path) -> None:
    inputs = np.zeros((1, 8, 40, 40), np.float32)
    options = CompileOptions(threads=2, precision="f32")
    program = write_app_program(artifact, [inputs], runtime("openvino"), options)
    text = program.read_text()
    assert "'INFERENCE_NUM_THREADS': 2" in text and "'INFERENCE_PRECISION_HINT': 'f32'" in text

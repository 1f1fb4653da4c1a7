"""A run on a CIFAR ResNet beside the smaller pretrained ones: time, multiplications, quality.

Every model goes through OpenVINO at the target's precision and is timed interleaved with the run's
dense model. Agreement and fidelity are those with the dense model on 5,000 JPEG test images.

    python tools/compare_resnets.py RUN_DIR [--also resnet32 --also resnet20] [--json FILE]
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from rows import add_json_option, show_rows
from tasks.cifar_resnet import Task

from edgeprune import console
from edgeprune.compression.fidelity import output_error
from edgeprune.devices import device
from edgeprune.devices.prediction import predictor
from edgeprune.graph.capture import capture
from edgeprune.graph.onnx_export import export_onnx
from edgeprune.latency.measure import save_inputs, time_interleaved
from edgeprune.report.record import read_report
from edgeprune.runtimes import runtime
from edgeprune.target import Target, load_target


def main() -> None:
    """Convert, judge, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--also", action="append", default=[], metavar="NET")
    parser.add_argument("--seconds", type=float, default=30.0)
    add_json_option(parser)
    options = parser.parse_args()
    record = read_report(options.run)
    target = load_target(record["device"])
    task = Task(**record["task"]["settings"])
    artifacts = {"dense": options.run / record["dense"]["artifact"]}
    if record["dense_int8"]:
        artifacts["dense int8"] = options.run / record["dense_int8"]["artifact"]
    for result in record["results"]:
        artifacts[result["goal"]] = options.run / result["artifact"]
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        for net in options.also or ["resnet32", "resnet20"]:
            artifacts[net] = pretrained(net, target, Path(folder))
        inputs = save_inputs([task.example_inputs()[0].numpy()], Path(folder) / "inputs.npz")
        show_rows(compare(task, target, artifacts, inputs, options.seconds), options.json)


def pretrained(net: str, target: Target, folder: Path) -> Path:
    """The artifact of another pretrained network of the development data."""
    task = Task(net)
    captured = capture(task.model(), task.example_inputs())
    export_onnx(captured.module, captured.example_inputs, folder / f"{net}.onnx")
    return runtime(target.runtime).convert(folder / f"{net}.onnx", folder / f"{net}.xml")


def compare(
    task: Task, target: Target, artifacts: dict[str, Path], inputs: Path, seconds: float
) -> list[dict[str, Any]]:
    """A row for each artifact; the first one is what the others are compared with."""
    machine = device(target.transport)
    measurement = time_interleaved(machine, target, artifacts, inputs, seconds=seconds, processes=3)
    first = next(iter(artifacts))
    pixels = task.pixels(task.agreement_images()).numpy()
    rows, wanted = [], np.zeros(0)
    with console.progress("judging", len(artifacts)) as bar:
        for name, artifact in artifacts.items():
            with predictor(machine, target, artifact, inputs) as predict:
                logits = np.concatenate([predict((image[None],))[0] for image in pixels])
                accuracy = task.quality(predict)
            wanted = logits if name == first else wanted
            stats = measurement.stats(name)
            outputs = [[(torch.from_numpy(values),)] for values in (logits, wanted)]
            rows.append(
                {
                    "model": name,
                    "ms": round(stats.median, 4),
                    "speedup": round(measurement.ratio(first, name)[0], 3),
                    "million_macs": round(macs(artifact) / 1e6, 2),
                    "accuracy": round(100 * accuracy, 2),
                    "agreement": round(100 * same(logits, wanted), 2),
                    "fidelity": round(1 - output_error(*outputs), 4),
                }
            )
            bar.advance()
    return rows


def same(found: Any, wanted: Any) -> float:
    """Share of images on which two models name the same class."""
    return float(np.mean(found.argmax(1) == wanted.argmax(1)))


def macs(artifact: Path) -> int:
    """Multiplications of the convolutions and matrix products of one inference."""
    total = 0
    for node in ov.Core().read_model(artifact).get_ops():
        if node.get_type_name() in ("Convolution", "MatMul"):
            weight = node.input(1).get_shape()
            inner = int(np.prod(list(weight)[1:]))
            total += int(np.prod(list(node.output(0).get_shape()))) * inner
    return total


if __name__ == "__main__":
    main()

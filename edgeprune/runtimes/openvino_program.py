"""The program that runs an IR with OpenVINO and numpy alone; filled by the runtime."""

PROGRAM = '''"""Runs {artifact} and prints its median latency. Needs openvino and numpy{needs}."""

import time
from pathlib import Path

import numpy as np
import openvino as ov
{imports}
folder = Path(__file__).parent
settings = {settings}
core = ov.Core()
{extension}model = core.compile_model(folder / "{artifact}", "CPU", settings)
request = model.create_infer_request()
with np.load(folder / "{inputs}") as examples:
    for place in range(len(model.inputs)):
        request.get_input_tensor(place).data[:] = examples[str(place)]

times_ms = []
end = time.perf_counter() + {seconds}
while time.perf_counter() < end:
    start = time.perf_counter()
    request.infer()
    times_ms.append(1e3 * (time.perf_counter() - start))
outputs = [request.get_output_tensor(place).data for place in range(len(model.outputs))]
print("output shapes", [output.shape for output in outputs])
print(f"median {{np.median(times_ms[len(times_ms) // 5 :]):.3f}} ms")
'''
# What a model with sparse layers needs besides, and what others leave out.
SPARSE = {
    "needs": ", and edgeprune's operator",
    "imports": "\nimport edgeprune\n",
    "extension": "core.add_extension(str(edgeprune.openvino_extension()))\n",
}
DENSE = {"needs": " only", "imports": "", "extension": ""}

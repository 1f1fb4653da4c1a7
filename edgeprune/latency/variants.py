"""Builds whole-model variants and measures them, each measurement one record of the table."""

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.devices import Device
from edgeprune.errors import InputError
from edgeprune.latency.stopwatch import Stopwatch, open_stopwatch
from edgeprune.latency.table import Table
from edgeprune.runtimes import runtime
from edgeprune.target import Target

if TYPE_CHECKING:
    from edgeprune.graph.choices import Choices
    from edgeprune.graph.network import Network

Levels = dict[str, int]

# Profiles of each variant, far apart in time, and rounds of unprofiled samples: models whose
# weights nearly fit a cache shared with others vary by 10% over half a minute.
REPETITIONS = 2
ROUNDS = 30
_SERIES_MS = 20.0
_PROFILE_MS = 150.0
_FEWEST_RUNS, _MOST_RUNS = 15, 200
_PROFILE_ATTEMPTS = 2
_UNDISTURBED = 1.05
# Artifacts opened at the same time may take this part of the free memory; a compiled model takes
# about twice its file.
_MEMORY_SHARE = 0.3
_COMPILED = 2.5


class _RefusedError(InputError):
    """The runtime cannot open a variant."""


@dataclass
class VariantRunner:
    """Measures variants of one network on one device; a variant is a level or option of each.

    Attributes:
        refused: What the runtime said of each variant that it could not open.
    """

    network: "Network"
    choices: "Choices"
    target: Target
    device: Device
    table: Table
    workdir: Path
    inputs: Path
    seed: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    def build(self, name: str, levels: Levels) -> Path:
        """The variant's artifact, from the work folder or made now."""
        from edgeprune.deployment import write_artifact
        from edgeprune.graph.blocks import mask_by_magnitude

        artifact = self._artifact(name)
        if artifact.exists():
            return artifact
        onnx = artifact.with_suffix(".onnx")
        onnx.parent.mkdir(parents=True, exist_ok=True)
        # Which units stay does not matter to the time.
        keep = {
            structure: range(level)
            for structure, level in self.choices.levels_of(levels).items()
            if level < self.network.structures[structure].units
        }
        formats = self.choices.formats_of(levels)
        module, examples = self.network.shrink(keep), self.network.captured.example_inputs
        mask_by_magnitude(module, formats)
        sample = tuple(value.numpy() for value in examples)
        backend = runtime(self.target.runtime)
        try:
            return write_artifact(module, formats, examples, onnx, artifact, backend, [sample])
        finally:
            onnx.unlink(missing_ok=True)

    def cost_s(self, name: str, levels: Levels) -> float:
        """Seconds to build and profile one variant, start-up of the process aside.

        Measured anew whatever the table and the work folder hold; the table takes what it lacks.
        """
        self._artifact(name).unlink(missing_ok=True)
        begin = time.monotonic()
        self.build(name, levels)
        built = time.monotonic() - begin
        took = 0.0
        with open_stopwatch(self.device, self.target, self.inputs) as watch:
            # The last one tells; the first waits for the process and its libraries to start.
            for _ in range(REPETITIONS):
                begin = time.monotonic()
                profile = self._profile(watch, name)
                took = time.monotonic() - begin
                if len(self.table.all("layers", name)) < REPETITIONS:
                    self._record(name, levels, profile)
        return built + REPETITIONS * took

    def profile_layers(self, variants: Mapping[str, Levels]) -> Iterator[int]:
        """Per-layer profiles up to their number; yields how many are still to come.

        Variants that the runtime cannot open are left out, and noted in ``refused``.
        """
        order = np.random.default_rng(self.seed)
        with open_stopwatch(self.device, self.target, self.inputs) as watch:
            for repetition in range(REPETITIONS):
                names = [str(name) for name in order.permutation(list(variants))]
                for place, name in enumerate(names, 1):
                    lacking = len(self.table.all("layers", name)) <= repetition
                    if lacking and name not in self.refused:
                        self._profile_one(watch, name, variants[name])
                    yield (REPETITIONS - repetition) * len(names) - place

    def _profile_one(self, watch: Stopwatch, name: str, levels: Levels) -> None:
        try:
            profile = self._profile(watch, name)
        except _RefusedError as error:
            self.refused[name] = str(error)
        else:
            self._record(name, levels, profile)

    def _record(self, name: str, levels: Levels, profile: dict[str, Any]) -> None:
        found = self.choices.formats_of(levels)
        formats = {"formats": {layer: str(f) for layer, f in found.items()}} if found else {}
        structures = self.choices.levels_of(levels)
        self.table.append("layers", name, {"levels": structures, **formats, **profile})

    def _profile(self, watch: Stopwatch, name: str) -> dict[str, Any]:
        """The least disturbed of a few profiles; counters cannot be reset, so each opens anew."""
        best: dict[str, Any] = {}
        for _ in range(_PROFILE_ATTEMPTS):
            self._open(watch, name)
            runs = int(np.clip(_PROFILE_MS / watch.typical_ms(name), _FEWEST_RUNS, _MOST_RUNS))
            profile = {"runs": runs, **watch.layers(name, runs)}
            watch.unload(name)
            if not best or profile["disturbed"] < best["disturbed"]:
                best = profile
            if best["disturbed"] < _UNDISTURBED or self.target.threads > 1:
                break
        return best

    def _open(self, watch: Stopwatch, name: str) -> None:
        try:
            watch.load(name, self._artifact(name), profile=True)
        except InputError as error:
            raise _RefusedError(str(error)) from error

    def time_whole(self, variants: Mapping[str, Levels], dense: str) -> Iterator[float]:
        """Unprofiled rounds up to their number, the dense model among them; yields the share done.

        Variants that do not fit into memory together are taken in turns.
        """
        order = np.random.default_rng(self.seed)
        shuffled = [str(name) for name in order.permutation([n for n in variants if n != dense])]
        turns = self._turns(shuffled, dense)
        for number, names in enumerate(turns):
            lacking = min(len(self.table.all("whole", name)) for name in names)
            with open_stopwatch(
                self.device, self.target, self.inputs, series_ms=_SERIES_MS
            ) as watch:
                for name in names:
                    watch.load(name, self._artifact(name))
                    watch.calibrate(name, like=dense if dense in watch.paces else None)
                for round_number in range(lacking, ROUNDS):
                    wanted = [
                        name
                        for name in names
                        if len(self.table.all("whole", name)) <= round_number
                        or (name == dense and name not in variants)
                    ]
                    round_ = watch.round(wanted, order)
                    for name in wanted:
                        if len(self.table.all("whole", name)) < ROUNDS:
                            self.table.append("whole", name, round_.record(name))
                    yield (number + (round_number + 1) / ROUNDS) / len(turns)

    def remove_artifacts(self) -> None:
        """Delete the variants' files; the table holds what they were for."""
        shutil.rmtree(self.workdir / "variants", ignore_errors=True)

    def _artifact(self, name: str) -> Path:
        suffix = runtime(self.target.runtime).suffix
        return self.workdir / "variants" / f"{name.replace(':', '-')}{suffix}"

    def _turns(self, names: list[str], dense: str) -> list[list[str]]:
        """Groups that fit into memory, each with the dense model in front."""
        size = runtime(self.target.runtime).size_bytes
        room = _MEMORY_SHARE * _free_bytes() - _COMPILED * size(self._artifact(dense))
        turns: list[list[str]] = [[dense]]
        used = 0.0
        for name in names:
            need = _COMPILED * size(self._artifact(name))
            if used + need > room and len(turns[-1]) > 1:
                turns.append([dense])
                used = 0.0
            turns[-1].append(name)
            used += need
        return turns


def _free_bytes() -> float:
    """Memory that can be had now; a cautious guess where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return 4e9
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024
    return 4e9

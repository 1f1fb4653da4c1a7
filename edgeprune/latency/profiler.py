"""Profiles a network in place: whole-model variants, measured on the device, into a latency model.

Every measurement goes to the table the moment it is taken, under a name made of the network's
graph and the variant's levels. Profiling again takes what is there and measures what is missing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune import console
from edgeprune.devices import Device
from edgeprune.errors import InputError
from edgeprune.formats import Format, parse_format
from edgeprune.graph.choices import Choices
from edgeprune.latency.attribution import Attribution
from edgeprune.latency.design import design_formats, design_variants, design_whole
from edgeprune.latency.fit import fit_model
from edgeprune.latency.handover import find_handovers
from edgeprune.latency.measure import save_inputs
from edgeprune.latency.model import LatencyModel
from edgeprune.latency.profiled_variant import Variant
from edgeprune.latency.signature import Bucket, digest, network_signature, plan_signature
from edgeprune.latency.table import Record, Table
from edgeprune.latency.variants import REPETITIONS, ROUNDS, VariantRunner
from edgeprune.target import Target

if TYPE_CHECKING:
    from edgeprune.graph.network import Network

Levels = dict[str, int]
Progress = Callable[[float, float, str], None]

# The number of variants is what the time allows, from one variant's cost to build and measure.
_FEWEST, _MOST = 24, 48
_ALLOWED_S = 100.0
_MORE_BY_FAMILY = 0.25
# Percentile of unprofiled times the model is fitted to: what the machine can do undisturbed.
PERCENTILE = 5.0
_HARDLY_WORSE = 1.05
# Part of the variants that the runtime may be unable to open, for one bug or another of its own.
_REFUSED_SHARE = 0.25


def profile_network(
    network: "Network",
    target: Target,
    device: Device,
    choices: Choices,
    table: Table,
    workdir: Path,
    progress: Progress | None = None,
    *,
    variants: int | None = None,
) -> LatencyModel:
    """Measure what is missing from the table and fit the latency model of a network.

    Args:
        network: The analysed network.
        target: Runtime, threads and precision.
        device: Where to measure.
        choices: What is offered; structures and sites left out stay dense.
        table: Where measurements are kept and taken from; of this device's fingerprint.
        workdir: For the variants' artifacts, which are removed once measured.
        progress: Called with what is done, the total, and a note.
        variants: How many variants to measure; by default what a minute or two allow.

    Raises:
        InputError: A level does not exist, a variant cannot be converted, or the runtime cannot
            open the dense model or many of the variants.
        UnavailableError: The device failed.
    """
    _check_levels(network, choices.levels)
    profile = _Profile(network, target, device, choices, table, workdir, progress, variants)
    profile.measure()
    return profile.fit()


@dataclass
class _Profile:
    """One run of the profiler."""

    network: "Network"
    target: Target
    device: Device
    choices: Choices
    table: Table
    workdir: Path
    progress: Progress | None
    variants: int | None = None

    def __post_init__(self) -> None:
        self.signature = network_signature(self.network)
        self.full = {name: s.units for name, s in self.network.structures.items()}
        self.dense = {**self.full, **dict.fromkeys(self.choices.sites, 0)}
        self.alike = {
            name: digest([self.network.structures[name].kind, self.full[name], list(levels)])
            for name, levels in self.choices.levels.items()
        }

    def measure(self) -> None:
        """Bring every variant of the design to its full number of measurements."""
        count = self._known_count()
        if count is not None and not self._missing(self._design(count)):
            return
        inputs = save_inputs(
            [value.numpy() for value in self.network.captured.example_inputs],
            self.workdir / "inputs.npz",
        )
        runner = VariantRunner(
            self.network,
            self.choices,
            self.target,
            self.device,
            self.table,
            self.workdir,
            inputs,
        )
        if count is None:
            count = self._settle_count(runner)
        design = self._design(count)
        self._measure_missing(runner, design)
        runner.remove_artifacts()

    def fit(self) -> LatencyModel:
        """The latency model, from every variant of this network in the table."""
        dense = self.table.latest("layers", self._name(self.dense))
        if dense is None:
            raise InputError("the dense model has not been profiled: profile again")
        attribution = Attribution(self.network, dense["layers"], self.choices.sites)
        variants = []
        for name in self.table.signatures("layers"):
            whole = self.table.all("whole", name)
            if not name.startswith(f"{self.signature}:") or len(whole) < ROUNDS // 2:
                continue
            records = _least_disturbed(self.table.all("layers", name))
            levels = {**self.full, **records[-1]["levels"]}
            fused = attribution.structures_fused(records[-1]["layers"])
            variants.append(
                Variant(
                    levels=levels,
                    profiles=tuple(attribution.time_by_bucket(r["layers"]) for r in records),
                    disturbed=tuple(record["disturbed"] for record in records),
                    total_us=1e3 * undisturbed_ms(whole, self.target.threads),
                    formats=_formats(records[-1]),
                    conversions=tuple(attribution.time_by_handover(r["layers"]) for r in records),
                    leftovers=_emptied(fused, levels),
                )
            )
        parts = attribution.parts()
        handovers = find_handovers(self.network, self.choices.sites, parts)
        return fit_model(parts, handovers, variants, self.choices, self.alike, self.full)

    def _design(self, count: int) -> list[Levels]:
        variants = design_variants(self.choices.levels, self.alike, count)
        complete = [{**self.dense, **variant} for variant in variants]
        dense, *others = complete
        whole = design_whole(self.choices, dense)
        return [dense, *whole, *design_formats(self.choices, others)]

    def _name(self, levels: Levels) -> str:
        structures, formats = self.choices.levels_of(levels), self.choices.formats_of(levels)
        return plan_signature(self.signature, structures, formats)

    def _design_name(self) -> str:
        options = [str(options) for options in self.choices.options.values()]
        levels = sorted(self.choices.levels.items())
        return f"{self.signature}:{digest([levels, options] if options else levels)}"

    def _known_count(self) -> int | None:
        if self.variants is not None:
            return self.variants
        record = self.table.latest("design", self._design_name())
        return None if record is None else int(record["variants"])

    def _settle_count(self, runner: VariantRunner) -> int:
        """Learn what a variant costs from the dense model, and write down how many that allows."""
        cost_s = self._known_cost_s()
        if cost_s is None:
            self._tell(0, 1, "dense model")
            cost_s = round(runner.cost_s(self._name(self.dense), self.dense), 2)
        families = {o[0].family for options in self.choices.options.values() for o in options}
        # Each family of formats is as good as another network to measure.
        more = 1 + _MORE_BY_FAMILY * max(0, len(families) - 1)
        count = int(np.clip(more * _ALLOWED_S / cost_s, more * _FEWEST, more * _MOST))
        self.table.append("design", self._design_name(), {"variants": count, "cost_s": cost_s})
        return count

    def _known_cost_s(self) -> float | None:
        """What a variant cost when other levels of this network were profiled."""
        for name in self.table.signatures("design"):
            if name.startswith(f"{self.signature}:"):
                return float(self.table.all("design", name)[0]["cost_s"])
        return None

    def _missing(self, design: list[Levels]) -> dict[str, Levels]:
        """Variants that lack measurements, by name."""
        return {
            name: levels
            for levels in design
            for name in (self._name(levels),)
            if not self.table.all("refused", name)
            and (
                len(self.table.all("layers", name)) < REPETITIONS
                or len(self.table.all("whole", name)) < ROUNDS
            )
        }

    def _measure_missing(self, runner: VariantRunner, design: list[Levels]) -> None:
        missing = self._missing(design)
        total = len(missing) * (2.0 + REPETITIONS)
        done = 0.0
        for number, (name, levels) in enumerate(missing.items(), 1):
            self._tell(done, total, f"building variant {number} of {len(missing)}")
            runner.build(name, levels)
            done += 1
        for number in runner.profile_layers(missing):
            done += 1
            self._tell(done, total, f"profiling layers, {number} left")
        self._leave_out(runner.refused, design)
        opened = {name: missing[name] for name in missing if name not in runner.refused}
        dense = self._name(self.dense)
        runner.build(dense, self.dense)
        before = done
        for share in runner.time_whole(opened, dense):
            done = before + share * len(missing)
            self._tell(done, total, "timing whole models")

    def _leave_out(self, refused: Mapping[str, str], design: Sequence[Levels]) -> None:
        """Note the variants that the runtime cannot open, so that they are not tried again."""
        if not refused:
            return
        first = next(iter(refused.values()))
        known = sum(bool(self.table.all("refused", self._name(levels))) for levels in design)
        count = known + len(refused)
        if count > _REFUSED_SHARE * len(design) or self._name(self.dense) in refused:
            raise InputError(
                f"{count} of {len(design)} variants cannot be opened; the first: {first}; "
                "take formats out of the recipe's search.formats, or report it"
            )
        for name, problem in refused.items():
            self.table.append("refused", name, {"problem": problem})
        console.warning(f"{count} of {len(design)} variants are left out: {first}")

    def _tell(self, done: float, total: float, note: str) -> None:
        if self.progress is not None:
            self.progress(done, total, note)


def _emptied(fused: Mapping[Bucket, tuple[str, ...]], levels: Levels) -> dict[Bucket, list[str]]:
    """The emptied among the structures of each bucket; buckets without any are left out."""
    found = {b: [name for name in names if levels[name] == 0] for b, names in fused.items()}
    return {bucket: names for bucket, names in found.items() if names}


def _formats(record: Record) -> dict[str, Format]:
    return {layer: parse_format(name) for layer, name in record.get("formats", {}).items()}


def _least_disturbed(records: Sequence[Record]) -> list[Record]:
    """Profiles that are hardly worse than the best of them."""
    best = min(record["disturbed"] for record in records)
    return [record for record in records if record["disturbed"] <= _HARDLY_WORSE * best]


def undisturbed_ms(records: Sequence[Mapping[str, Any]], threads: int) -> float:
    """What an inference takes when nothing else runs, from records of whole-model rounds.

    With one thread that is processor time, since the wall's clock goes on while another process
    has the processor; a low percentile of it, since caches and memory are shared as well.
    """
    field = "cpu_ms" if threads == 1 else "samples_ms"
    return float(np.percentile(np.concatenate([r[field] for r in records]), PERCENTILE))


def _check_levels(network: "Network", levels: Mapping[str, tuple[int, ...]]) -> None:
    for name, offered in levels.items():
        if name not in network.structures:
            raise InputError(f"the network has no structure '{name}'")
        structure = network.structures[name]
        lowest = structure.least
        wrong = [level for level in offered if not lowest <= level <= structure.units]
        if wrong or not offered or list(offered) != sorted(set(offered)):
            raise InputError(
                f"levels of '{name}' must ascend within {lowest} to {structure.units}, "
                f"got {json.dumps(list(offered))}"
            )
        if offered[-1] != structure.units:
            raise InputError(f"levels of '{name}' must end with all {structure.units} units")

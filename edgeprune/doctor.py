"""What works on this machine, and one line for each thing that would mend what does not."""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edgeprune.errors import EdgepruneError
from edgeprune.locate import cache_folder, shipped_folder, shipped_names, version

State = Literal["ok", "missing", "warn"]

LOWEST_FREE_GB = 2.0
# Package, what needs it, the extra that brings it.
_OPTIONAL = (
    ("openvino", "the openvino runtime", "openvino"),
    ("nncf", "the dense int8 row", "openvino"),
    ("onnx", "export to a runtime", "openvino"),
    ("transformers", "task sentence-embedding", "text"),
    ("pillow", "image files of task image-classification", "image"),
    ("scikit-learn", "task digits", "demo"),
)
_CPU_FLAGS = {
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "vnni": ("avx512_vnni", "avx_vnni"),
    "bf16": ("avx512_bf16", "amx_bf16"),
    "amx": ("amx_tile",),
}


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        state: ``ok``, ``warn`` (works, not well) or ``missing``.
        found: What is there, or why not.
        fix: A command or advice where something is missing.
    """

    name: str
    state: State
    found: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """Fields as JSON values."""
        return asdict(self)


def check_all() -> list[Check]:
    """All checks; a check that fails unexpectedly is itself a finding."""
    checks: list[Check] = []
    for group in (_python, _libraries, _processor, _kernels, _targets, _folders):
        checks += _guarded(group)
    return checks


def _guarded(group: Callable[[], Iterator[Check]]) -> list[Check]:
    try:
        return list(group())
    except Exception as error:
        name = group.__name__.strip("_")
        return [Check(name, "warn", f"cannot be looked at: {type(error).__name__}: {error}")]


def _python() -> Iterator[Check]:
    yield Check("edgeprune", "ok", version())
    yield Check("python", "ok", f"{platform.python_version()} ({sys.executable})")
    found = _installed("torch")
    yield Check(
        "torch",
        "ok" if found else "missing",
        found or "not installed",
        "" if found else "pip install 'torch>=2.10'",
    )


def _libraries() -> Iterator[Check]:
    for package, use, extra in _OPTIONAL:
        found = _installed(package)
        if found:
            yield Check(package, "ok", found)
        else:
            fix = f"pip install 'edgeprune[{extra}]'"
            yield Check(package, "missing", f"not installed; needed for {use}", fix)


def _processor() -> Iterator[Check]:
    from edgeprune.devices.machine import cpu_flags, describe

    facts, flags = describe(), set(cpu_flags())
    present = [name for name, any_of in _CPU_FLAGS.items() if flags & set(any_of)]
    found = f"{facts['cpu']}, {facts['cores']} cores: {' '.join(present) or '-'}"
    yield Check("processor", "ok", found)
    load = os.getloadavg()[0]
    busy = load > 0.5 * (os.cpu_count() or 1)
    yield Check(
        "load",
        "warn" if busy else "ok",
        f"{load:.2f}",
        "stop other programs before measuring: they make latencies noisy" if busy else "",
    )


def _kernels() -> Iterator[Check]:
    from edgeprune.kernels import compilation

    found = compilation.compiler()
    shown = " ".join(found) if found else "none; it builds the kernels"
    yield Check("c++ compiler", "ok" if found else "warn", shown)
    yield _kernels_check()
    if _installed("openvino"):
        yield _operator_check()


def _kernels_check() -> Check:
    from edgeprune.kernels import instruction_sets
    from edgeprune.kernels.library import REMEDY

    try:
        return Check("sparse kernels", "ok", " ".join(instruction_sets()))
    except EdgepruneError as error:
        return Check("sparse kernels", "missing", str(error).split(";")[0], REMEDY)


def _operator_check() -> Check:
    """Whether OpenVINO takes the operator; nothing is compiled for the answer."""
    from edgeprune.kernels.extension import existing_extension
    from edgeprune.runtimes.openvino import core_with_operator

    name = "sparse operator for openvino"
    path = existing_extension()
    if path is None:
        found = "not built for this version; it is compiled when it is first used"
        return Check(name, "warn", found)
    try:
        core_with_operator()
    except EdgepruneError as error:
        return Check(name, "missing", str(error), f"delete {path}; it is compiled again")
    return Check(name, "ok", str(path))


def _targets() -> Iterator[Check]:
    from edgeprune.devices import device
    from edgeprune.latency.fingerprint import take
    from edgeprune.target import load_target

    names = shipped_names("targets")
    if not names:
        folder = shipped_folder("targets")
        yield Check("targets", "missing", f"no target in {folder}", "install edgeprune again")
    for name in names:
        try:
            target = load_target(name)
            facts = take(device(target.transport), target).facts
            versions = " ".join(f"{k} {v}" for k, v in facts["versions"].items())
            yield Check(f"target {name}", "ok", f"{target.description}; {versions}")
        except EdgepruneError as error:
            yield Check(f"target {name}", "missing", str(error))


def _folders() -> Iterator[Check]:
    cache = cache_folder()
    for name, folder in (("cache folder", cache), ("working folder", Path.cwd())):
        free_gb = shutil.disk_usage(folder).free / 1e9
        writable = os.access(folder, os.W_OK)
        small = free_gb < LOWEST_FREE_GB
        found = f"{folder}, {free_gb:.1f} GB free" + ("" if writable else ", not writable")
        fix = ""
        if not writable:
            fix = f"make {folder} writable" + (", or set XDG_CACHE_HOME" if folder == cache else "")
        elif small:
            fix = f"free some space for {folder}: runs need about {LOWEST_FREE_GB:.0f} GB"
        yield Check(name, "ok" if writable and not small else "warn", found, fix)


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""

"""What the machine at hand is, and what state it is in; read where the runner runs."""

import contextlib
import hashlib
import os
import platform
import time
from pathlib import Path
from typing import Any

_CPU = Path("/sys/devices/system/cpu/cpu0/cpufreq")


def describe() -> dict[str, Any]:
    """What decides speed and stays: processor, its features, cores, clock rules, affinity."""
    cpu = _cpu_info()
    flags = " ".join(_flags(cpu))
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu": cpu.get("model name", platform.processor() or "unknown"),
        "cpu_model": "/".join(
            cpu.get(key, "?") for key in ("vendor_id", "cpu family", "model", "stepping")
        ),
        "cpu_flags": hashlib.sha256(flags.encode()).hexdigest()[:12],
        "cores": os.cpu_count() or 0,
        "affinity": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "governor": _read(_CPU / "scaling_governor"),
        "max_clock_khz": _read(_CPU / "cpuinfo_max_freq"),
        "boost": _read(Path("/sys/devices/system/cpu/cpufreq/boost")),
    }


def cpu_flags() -> list[str]:
    """What the processor can do, as the system calls it, sorted."""
    return _flags(_cpu_info())


def state() -> dict[str, Any]:
    """What changes from minute to minute: load, steal, temperature, clock, time of day."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load": round(load, 2),
        "steal_ticks": _steal_ticks(),
        "temperature_mc": _read(Path("/sys/class/thermal/thermal_zone0/temp")),
        "clock_khz": _read(_CPU / "scaling_cur_freq"),
    }


def _cpu_info() -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        if not line.strip():
            break
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip()
    return fields


def _flags(cpu: dict[str, str]) -> list[str]:
    return sorted(cpu.get("flags", cpu.get("Features", "")).split())


def _steal_ticks() -> int | None:
    line = (_read(Path("/proc/stat")) or "").partition("\n")[0].split()
    return int(line[8]) if len(line) > 8 else None


def _read(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return None

"""Durations and speed-ups as people type them: ``10ms``, ``0.5s``, ``800us``, ``2x``."""

import math
import re

from edgeprune.errors import InputError

_MILLISECONDS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "min": 6e4}
_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([a-zA-Zµ]*)\s*")

HIGHEST_SPEEDUP = 100.0


def parse_latency_ms(text: str) -> float:
    """A latency in milliseconds; the unit must be given.

    Raises:
        InputError: not a number with a unit, or not above zero.
    """
    number, unit = _split(text, "latency", "10ms, 0.5s or 800us")
    if unit not in _MILLISECONDS:
        seen = f"unit '{unit}'" if unit else "no unit"
        raise InputError(f"latency '{text}' has {seen}; write it like 10ms, 0.5s or 800us")
    value = number * _MILLISECONDS[unit]
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"latency '{text}' is not above zero; write it like 10ms, 0.5s or 800us")
    return value


def parse_speedup(text: str) -> float:
    """A speed-up over the dense model, such as ``2x`` or plain ``2``.

    Raises:
        InputError: not a number, not above 1, or beyond any speed-up a network can have.
    """
    number, unit = _split(text, "speed-up", "2x")
    if unit not in ("", "x", "X"):
        raise InputError(f"speed-up '{text}' has unit '{unit}'; write it like 2x")
    if not number > 1:
        raise InputError(f"speed-up '{text}' is not above 1x; write it like 2x")
    if number > HIGHEST_SPEEDUP:
        raise InputError(f"speed-up '{text}' is beyond reach; ask for at most {HIGHEST_SPEEDUP:g}x")
    return number


def parse_minutes(text: str) -> float | None:
    """Minutes of recovery: a number (``25``), a duration (``25min``, ``90s``) or ``none``."""
    if text.strip().lower() == "none":
        return None
    number, unit = _split(text, "recovery", "none, 25 or 90s")
    if unit not in ("", "min", "s"):
        raise InputError(f"recovery '{text}' has unit '{unit}'; write it like none, 25 or 90s")
    minutes = number / 60 if unit == "s" else number
    if not (math.isfinite(minutes) and minutes >= 0):
        raise InputError(f"recovery '{text}' is negative; write it like none, 25 or 90s")
    return minutes or None


def _split(text: str, what: str, example: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise InputError(f"{what} '{text}' is not a number; write it like {example}")
    return float(match[1]), match[2]

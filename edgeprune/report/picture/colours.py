"""Colours of structures: neighbours in a network differ most."""

import math

NEUTRAL = "#9aa5b1"
"""What belongs to no structure."""

# Of a turn, the golden angle: no two of many hues come close, and neighbours lie far apart.
_HUE_STEP = (3 - math.sqrt(5)) / 2
_FIRST_HUE = 0.71
# Four, since hues come close again after 8, 21 and 55 steps.
_LIGHTNESSES = (0.62, 0.47, 0.78, 0.55)
_CHROMA = 0.14
_DARK = 0.65


def colour(number: int) -> str:
    """The colour of a structure by its number, from 1, as ``#rrggbb``."""
    hue = 2 * math.pi * ((_FIRST_HUE + (number - 1) * _HUE_STEP) % 1.0)
    return _from_oklab(_lightness(number), _CHROMA * math.cos(hue), _CHROMA * math.sin(hue))


def text_colour(number: int) -> str:
    """White or near black, whichever is read better on the structure's colour."""
    return "#ffffff" if _lightness(number) < _DARK else "#1f2933"


def _lightness(number: int) -> float:
    return _LIGHTNESSES[(number - 1) % len(_LIGHTNESSES)]


def _from_oklab(lightness: float, a: float, b: float) -> str:
    """sRGB of a colour in Oklab (Ottosson 2020), in which equal steps look equal."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    return "#" + "".join(f"{_encoded(value):02x}" for value in linear)


def _encoded(linear: float) -> int:
    value = min(max(linear, 0.0), 1.0)
    curved = 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
    return round(255 * curved)

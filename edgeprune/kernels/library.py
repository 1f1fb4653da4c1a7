"""The compiled kernels: found, loaded and called."""

import ctypes
import functools
import os
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from edgeprune.errors import InputError, UnavailableError
from edgeprune.kernels.compilation import LIBRARY

ACTIVATIONS = {"none": 0, "relu": 1, "gelu": 2, "silu": 3}
REMEDY = "install edgeprune again where a C++ compiler is found (g++ 11 or later)"

_MOST_ISAS = 16
_pointer, _length, _text = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p


class ProductLayer(ctypes.Structure):
    """One layer of a product, as ``c_api.cpp`` reads it."""

    _fields_: ClassVar = [
        ("weight", _pointer),
        ("bias", _pointer),
        ("activation", ctypes.c_uint32),
        ("scale", ctypes.c_float),
        ("zero_point", ctypes.c_int32),
    ]


class Window(ctypes.Structure):
    """How a convolution reads its images, as ``kernels.hpp`` has it."""

    _fields_: ClassVar = [
        ("channels", ctypes.c_uint32),
        ("size", ctypes.c_uint32 * 2),
        ("kernel", ctypes.c_uint32 * 2),
        ("stride", ctypes.c_uint32 * 2),
        ("padding", ctypes.c_uint32 * 2),
        ("dilation", ctypes.c_uint32 * 2),
    ]


def folder() -> Path:
    """Where the compiled kernels lie; ``EDGEPRUNE_KERNELS`` names another build of them."""
    return Path(os.environ.get("EDGEPRUNE_KERNELS") or Path(__file__).parent)


@functools.cache
def library() -> ctypes.CDLL:
    """The shared library that the package's build made.

    Raises:
        UnavailableError: It was not built, or cannot be loaded here.
    """
    path = folder() / LIBRARY
    if not path.exists():
        raise UnavailableError(f"the sparse kernels were not built; {REMEDY}")
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(
            f"the sparse kernels cannot be loaded ({error}); {REMEDY}"
        ) from error
    loaded.edgeprune_isa.restype = _text
    loaded.edgeprune_open.restype = _text
    loaded.edgeprune_open.argtypes = [_pointer, _length, _text, ctypes.POINTER(_pointer)]
    loaded.edgeprune_close.restype = None
    loaded.edgeprune_close.argtypes = [_pointer]
    loaded.edgeprune_multiply.restype = _text
    loaded.edgeprune_multiply.argtypes = [
        *(ctypes.POINTER(ProductLayer), ctypes.c_uint32),
        *(_pointer, ctypes.c_uint32, _pointer, ctypes.c_int),
    ]
    loaded.edgeprune_convolve.restype = _text
    loaded.edgeprune_convolve.argtypes = [
        *(ctypes.POINTER(ProductLayer), ctypes.POINTER(Window)),
        *(_pointer, ctypes.c_uint64, _pointer, ctypes.c_int),
    ]
    loaded.edgeprune_peak.restype = ctypes.c_uint64
    loaded.edgeprune_peak.argtypes = [_text, ctypes.c_uint32, ctypes.c_uint64]
    return loaded


@functools.cache
def instruction_sets() -> tuple[str, ...]:
    """What this processor has of the instruction sets that kernels exist for, best first.

    Raises:
        UnavailableError: The kernels were not built.
    """
    names = (library().edgeprune_isa(number) for number in range(_MOST_ISAS))
    return tuple(name.decode() for name in names if name)


def opened(packed: npt.NDArray[np.uint8], isa: str) -> int:
    """A handle of a packed weight, which has to stay where it is until the handle is closed.

    Args:
        packed: The bytes.
        isa: One of :func:`instruction_sets`, or nothing for the best.

    Raises:
        InputError: It is truncated, altered, or of another version; or the processor lacks the
            instruction set.
        UnavailableError: The kernels were not built.
    """
    handle = _pointer()
    problem = library().edgeprune_open(
        packed.ctypes.data, packed.size, isa.encode(), ctypes.byref(handle)
    )
    if problem:
        raise InputError(f"a packed weight cannot be used: {problem.decode()}")
    assert handle.value is not None
    return handle.value


def close(handle: int) -> None:
    """Give a handle back."""
    library().edgeprune_close(handle)

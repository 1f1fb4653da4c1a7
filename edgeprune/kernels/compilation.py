"""Compiles the C++ sources: while the package is built, and for another OpenVINO afterwards.

Only the standard library is imported here, because the package's own build runs this file.
"""

import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent / "native"
LIBRARY = "libedgeprune_kernels.so"
ARCHIVE = "libedgeprune_kernels.a"

_OPERATOR = "libedgeprune_openvino_{version}.so"
# What the libraries in OpenVINO's wheel were built with, by its own CMake files.
_OPENVINO_FLAGS = ("-D_GLIBCXX_USE_CXX11_ABI=1", "-DOV_THREAD=OV_THREAD_TBB_ADAPTIVE")
_OPENVINO_LIBRARIES = ("libopenvino.so.*", "libopenvino_onnx_frontend.so.*", "libtbb.so.*")
# From where the package and OpenVINO are both installed.
_OPENVINO_NEARBY = "$ORIGIN/../../openvino/libs"

_COMMON = ("format.cpp", "prepared.cpp", "multiply.cpp", "convolution.cpp", "dispatch.cpp")
_FLAGS = ("-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
_AVX2 = ("-mavx2", "-mfma")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni")
# The name of an instruction set is the namespace of its kernels.
_X86_ISAS: dict[str, tuple[str, ...]] = {
    "amx": (*_AVX512, "-mamx-tile", "-mamx-int8", "-mamx-bf16"),
    "avx512_bf16": (*_AVX512, "-mavx512bf16"),
    "avx512": _AVX512,
    "avx2_vnni": (*_AVX2, "-mavxvnni"),
    "avx2": _AVX2,
}


@functools.cache
def revision() -> str:
    """A short hash of the C++ sources: of other kernels, other files and other times."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


class CompilationError(Exception):
    """There is no compiler, or it failed; the message is one line."""


def compiler() -> list[str] | None:
    """The C++ compiler's command: ``CXX`` where it is set, else the first found."""
    named = os.environ.get("CXX")
    candidates = [shlex.split(named)] if named else [["g++"], ["c++"], ["clang++"]]
    for program, *options in candidates:
        if found := shutil.which(program):
            return [found, *options]
    return None


def instruction_sets() -> dict[str, tuple[str, ...]]:
    """Options of the compiler for each instruction set that kernels are made for here."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    return {**(_X86_ISAS if x86 else {}), "portable": ()}


def build_kernels(folder: Path, flags: Sequence[str] = ()) -> None:
    """Compile the kernels into ``folder``: a library for Python, an archive to link elsewhere.

    Raises:
        CompilationError: There is no compiler, or it failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        jobs = [
            ("isa.cpp", place / f"{name}.o", (f"-DEDGEPRUNE_ISA={name}", *options))
            for name, options in instruction_sets().items()
        ]
        jobs += [(name, place / f"{name}.o", ()) for name in (*_COMMON, "c_api.cpp")]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = [pool.submit(compile_one, *job, flags=flags) for job in jobs]
            objects = [future.result() for future in made]
        shared = [name for name in objects if name.name != "c_api.cpp.o"]
        _run(["ar", "rcs", str(place / ARCHIVE), *map(str, shared)])
        _run([*_found(), "-shared", *flags, "-o", str(place / LIBRARY), *map(str, objects)])
        folder.mkdir(parents=True, exist_ok=True)
        for name in (ARCHIVE, LIBRARY):
            _put(place / name, folder / name)


def operator_name(version: str) -> str:
    """File name of the operator for a version of OpenVINO such as ``2026.4.1``."""
    return _OPERATOR.format(version=version)


def build_operator(openvino: Path, kernels: Path, folder: Path) -> Path:
    """Compile the operator against an installed OpenVINO.

    Args:
        openvino: The installed Python package of OpenVINO, which holds its headers.
        kernels: Where :func:`build_kernels` left its archive.
        folder: Where the operator is put.

    Raises:
        CompilationError: Headers or the archive are missing, or the compiler is, or failed.
    """
    version = openvino_version(openvino)
    archive = kernels / ARCHIVE
    if not archive.is_file():
        raise CompilationError(f"{archive} is missing: the kernels were not built")
    libraries = [found for name in _OPENVINO_LIBRARIES for found in (openvino / "libs").glob(name)]
    if len(libraries) != len(_OPENVINO_LIBRARIES):
        raise CompilationError(f"{openvino / 'libs'} lacks one of {', '.join(_OPENVINO_LIBRARIES)}")
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        options = (*_OPENVINO_FLAGS, "-isystem", str(openvino / "include"))
        made = compile_one("openvino_op.cpp", place / "openvino_op.o", options)
        paths = f"-Wl,-rpath,{_OPENVINO_NEARBY}:{openvino / 'libs'}"
        library = place / operator_name(version)
        linked = map(str, (made, archive, *libraries))
        _run([*_found(), "-shared", "-o", str(library), *linked, paths, "-Wl,--no-undefined"])
        folder.mkdir(parents=True, exist_ok=True)
        _put(library, folder / library.name)
    return folder / library.name


def openvino_version(openvino: Path) -> str:
    """The version that the headers of an installed OpenVINO name.

    Raises:
        CompilationError: There are no headers.
    """
    header = openvino / "include" / "openvino" / "core" / "version.hpp"
    if not header.is_file():
        raise CompilationError(f"{header} is missing: this OpenVINO brings no headers")
    parts = re.findall(r"#define OPENVINO_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", header.read_text())
    return ".".join(parts)


def compile_one(
    source: str, target: Path, options: Sequence[str], flags: Sequence[str] = ()
) -> Path:
    """Compile one file of ``native/`` to an object file, with ``CXXFLAGS`` behind our own options.

    Raises:
        CompilationError: There is no compiler, or it failed.
    """
    path = str(SOURCES / source)
    users = shlex.split(os.environ.get("CXXFLAGS", ""))
    _run([*_found(), *_FLAGS, *users, *options, *flags, "-c", path, "-o", str(target)])
    return target


def _found() -> list[str]:
    found = compiler()
    if found is None:
        raise CompilationError("no C++ compiler was found; install g++ 11 or later, or set CXX")
    return found


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CompilationError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or ["no message"]
        raise CompilationError(f"{command[0]} failed: {lines[0].strip()}")


def _put(made: Path, target: Path) -> None:
    """Copy under another name first, so that a running program keeps the library it has."""
    partial = target.with_suffix(f".{os.getpid()}.tmp")
    shutil.copyfile(made, partial)
    partial.replace(target)

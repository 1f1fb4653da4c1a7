"""The operator that runs packed weights inside OpenVINO, built for the OpenVINO installed here."""

import functools
import importlib.metadata
import importlib.util
from pathlib import Path

from edgeprune import console
from edgeprune.errors import UnavailableError
from edgeprune.kernels import compilation, library
from edgeprune.locate import cache_folder


@functools.cache
def openvino_extension() -> Path:
    """The library to give to ``openvino.Core().add_extension``.

    The package's own build makes it for the OpenVINO that it finds. For one that was installed or
    replaced afterwards it is compiled once, into the user's cache.

    Raises:
        UnavailableError: OpenVINO is not installed, or there is no operator for it and none can
            be compiled; the message says why.
    """
    found = existing_extension()
    if found is not None:
        return found
    version = _openvino_version()
    console.message(f"compiling the sparse operator for OpenVINO {version}, once")
    try:
        return compilation.build_operator(_openvino_folder(), library.folder(), _cache())
    except compilation.CompilationError as error:
        raise UnavailableError(
            f"the sparse operator is not built for OpenVINO {version}: {error}"
        ) from error


def existing_extension() -> Path | None:
    """The operator for the OpenVINO installed here, if it was built already.

    Raises:
        UnavailableError: OpenVINO is not installed.
    """
    name = compilation.operator_name(_openvino_version())
    places = (library.folder() / name, _cache() / name)
    return next((path for path in places if path.is_file()), None)


def _cache() -> Path:
    """Named after the C++ sources: an operator of other kernels is not this package's."""
    return cache_folder("kernels", compilation.revision())


def _openvino_version() -> str:
    try:
        return importlib.metadata.version("openvino").split("+")[0]
    except importlib.metadata.PackageNotFoundError as error:
        raise UnavailableError(
            "openvino is not installed: pip install 'edgeprune[openvino]'"
        ) from error


def _openvino_folder() -> Path:
    found = importlib.util.find_spec("openvino")
    if found is None or found.origin is None:
        raise UnavailableError("openvino is installed, but its package cannot be found")
    return Path(found.origin).parent

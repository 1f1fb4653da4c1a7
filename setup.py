"""Compiles the C++ kernels while the package is built; everything else stands in setup.cfg.

Without a compiler the package is built all the same: what needs the kernels says that they are
missing, and ``edgeprune doctor`` how to get them.
"""

import runpy
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

KERNELS = Path("edgeprune", "kernels")


class BuildKernels(build_ext):
    """Builds a plain shared library, which Python loads through ctypes."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split(".")).with_suffix(".so"))

    def build_extension(self, ext: Extension) -> None:
        compilation = runpy.run_path(str(KERNELS / "compilation.py"))
        folder = Path(self.get_ext_fullpath(ext.name)).parent
        # Of the environment that is installed into, even where the build is isolated from it.
        openvino = Path(sysconfig.get_path("platlib"), "openvino")
        try:
            compilation["build_kernels"](folder)
            if openvino.is_dir():
                compilation["build_operator"](openvino, folder, folder)
        except compilation["CompilationError"] as error:
            # What an earlier build left would not fit these sources.
            for path in [*KERNELS.glob("*.so"), *KERNELS.glob("*.a")]:
                path.unlink()
            raise CompileError(str(error)) from error

    def copy_extensions_to_source(self) -> None:
        """For an editable install: what was built, beside the sources."""
        built = Path(self.build_lib, KERNELS)
        for path in [*built.glob("*.so"), *built.glob("*.a")]:
            self.copy_file(str(path), str(KERNELS / path.name))


sources = sorted(str(path) for path in (KERNELS / "native").glob("*.cpp"))
headers = sorted(str(path) for path in (KERNELS / "native").glob("*.hpp"))
kernels = Extension(
    "edgeprune.kernels.libedgeprune_kernels", sources, depends=headers, optional=True
)
setup(ext_modules=[kernels], cmdclass={"build_ext": BuildKernels})

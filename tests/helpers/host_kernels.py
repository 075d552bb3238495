"""The kernels compiled by the machine's own C++ compiler, so that their values can be seen without a GPU."""

import ctypes
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
from numpy.typing import NDArray

from stylize import runtime
from stylize.runtime.device_color import PASS_DTYPE
from stylize.runtime.device_steady import STEADY_DTYPE

FOLDER = Path(runtime.__file__).parent
SOURCE = FOLDER / "kernels.cu"


class HostKernels:
    """The kernels as functions that run all their threads one after the other."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        # The structs of the compiler and those of NumPy are one.
        assert library.size_of_pass() == PASS_DTYPE.itemsize
        assert library.size_of_steady() == STEADY_DTYPE.itemsize

    def run(self, name: str, argument: NDArray[np.void], num_columns: int, num_rows: int) -> None:
        assert argument.dtype == (STEADY_DTYPE if name.startswith("steady_") else PASS_DTYPE)
        held = np.asarray(argument)
        getattr(self._library, name)(ctypes.c_void_p(held.ctypes.data), num_columns, num_rows)


@cache
def host_kernels() -> HostKernels:
    """Compile once per process; skips the test where there is no compiler that knows half floats."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler here: the kernels are checked where there is one")
    folder = Path(mkdtemp(prefix="stylize-kernels-"))
    library = folder / "kernels.so"
    command = [compiler, "-x", "c++", "-std=c++17", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "_Float16" in done.stderr:
        pytest.skip(f"{compiler} has no _Float16: the kernels are checked where it has")
    assert done.returncode == 0, done.stderr
    loaded = ctypes.CDLL(str(library))
    shutil.rmtree(folder)
    return HostKernels(loaded)

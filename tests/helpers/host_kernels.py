"""`color.cu` compiled by the machine's own C++ compiler, so that its values can be seen without a GPU."""

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

SOURCE = Path(runtime.__file__).parent / "color.cu"


class HostKernels:
    """The kernels as functions that run all their threads one after the other."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        # The struct of the compiler and that of NumPy are one.
        assert library.size_of_pass() == PASS_DTYPE.itemsize

    def run(self, name: str, kernel_pass: NDArray[np.void], num_runs: int, num_rows: int) -> None:
        argument = np.asarray(kernel_pass, PASS_DTYPE)
        getattr(self._library, name)(ctypes.c_void_p(argument.ctypes.data), num_runs, num_rows)


@cache
def host_kernels() -> HostKernels:
    """Compile once per process; skips the test where there is no compiler that knows half floats."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler here: color.cu is checked where there is one")
    library = Path(mkdtemp(prefix="stylize-kernels-")) / "color.so"
    command = [compiler, "-x", "c++", "-std=c++17", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "_Float16" in done.stderr:
        pytest.skip(f"{compiler} has no _Float16: color.cu is checked where it has")
    assert done.returncode == 0, done.stderr
    loaded = ctypes.CDLL(str(library))
    shutil.rmtree(library.parent)
    return HostKernels(loaded)

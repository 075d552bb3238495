"""Peak memory of a rendering, in the process it is measured in and from outside."""

import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.clips import write_clip
from helpers.networks import write_affine
from stylize.benchmarks.memory import own_peak_resident_bytes, peak_memory
from stylize.runtime.errors import BackendError
from stylize.runtime.runner import Backend, ComputePrecision


@pytest.mark.skipif(not Path("/proc/self/status").exists() and sys.platform == "win32", reason="no such figure there")
def test_peak_memory_sees_a_buffer_that_was_freed_again() -> None:
    before = own_peak_resident_bytes()
    buffer = np.ones(before + 64 * 2**20, np.uint8)
    size_bytes = buffer.nbytes
    del buffer
    assert own_peak_resident_bytes() >= size_bytes


def test_a_process_that_fails_is_one_line(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    with pytest.raises(BackendError, match=r"missing.onnx: the process that measures memory failed: .*no such file"):
        peak_memory(
            tmp_path / "missing.onnx",
            backend=Backend.ONNXRUNTIME,
            precision=ComputePrecision.AUTO,
            clip=clip,
            output=tmp_path / "out.mp4",
            device=None,
        )
    assert write_affine(tmp_path / "model.onnx").exists()

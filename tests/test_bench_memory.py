"""Peak memory of a rendering, in the process it is measured in and from outside."""

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.clips import write_clip
from helpers.networks import write_affine
from stylize.benchmarks.memory import peak_memory
from stylize.runtime.errors import BackendError
from stylize.runtime.runner import Backend, ComputePrecision


@pytest.mark.skipif(not Path("/proc/self/status").exists() and sys.platform == "win32", reason="no such figure there")
def test_peak_memory_sees_a_buffer_that_was_freed_again() -> None:
    # In a process of its own, which has not been larger before.
    size_bytes = 512 * 2**20
    program = f"""if True:
        import numpy as np
        from stylize.benchmarks.memory import own_peak_resident_bytes
        before = own_peak_resident_bytes()
        buffer = np.ones({size_bytes}, np.uint8)
        del buffer
        print(before, own_peak_resident_bytes())
    """
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    before, after = (int(figure) for figure in printed.split())
    assert before < size_bytes
    assert size_bytes <= after < before + 1.1 * size_bytes


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

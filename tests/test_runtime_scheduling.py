"""Encoders that help themselves to the machine."""

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

import av
import pytest

from helpers.clips import ClipSpec, write_clip
from helpers.networks import write_affine
from stylize.runtime import EncodeOptions, stylize_video
from stylize.runtime.resume import ResumeOptions
from stylize.runtime.scheduling import ordinary_threads

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux may take real-time priority"
)


def policies() -> set[int]:
    """How the threads of this process are scheduled."""
    found = set()
    for path in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended
            found.add(os.sched_getscheduler(int(path.name)))
    return found


@pytest.mark.parametrize("resume", [None, ResumeOptions(segment_frames=4)], ids=["at once", "in segments"])
def test_no_thread_has_real_time_priority_while_svt_av1_encodes(resume: ResumeOptions | None, tmp_path: Path) -> None:
    model = write_affine(tmp_path / "identity.onnx")
    clip = write_clip(tmp_path / "in.mp4", ClipSpec(pts=range(8)))
    before, seen = policies(), list[set[int]]()
    stylize_video(
        model,
        clip,
        tmp_path / "out.mp4",
        encode=EncodeOptions(codec="libsvtav1", preset="12"),
        resume=resume,
        on_progress=lambda _done, _total: seen.append(policies()),
    )
    assert seen
    assert set().union(*seen) == before == policies()


def test_threads_of_others_are_left_as_they_are() -> None:
    """A program that calls us may have threads in real time, of sound say."""
    is_over, is_ready = threading.Event(), threading.Event()
    policy_of_other: list[int] = []

    def other() -> None:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        is_ready.set()
        is_over.wait()
        policy_of_other.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=other)
    thread.start()
    is_ready.wait()
    with av.open(os.devnull, "w", format="ivf") as container:
        stream = container.add_stream("libsvtav1", rate=25, options={"preset": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        with ordinary_threads():
            container.start_encoding()
            assert os.SCHED_FIFO in policies(), "else this encoder need not be watched any more"
        assert os.SCHED_FIFO not in policies()
    is_over.set()
    thread.join()
    assert policy_of_other == [os.SCHED_RR]

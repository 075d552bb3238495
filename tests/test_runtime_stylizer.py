"""The Python interface, and what it says where it is used in another way than it can be."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.clips import ClipSpec, write_clip
from helpers.networks import write_affine
from stylize.runtime import Stylizer, stylize_video
from stylize.runtime.errors import BackendError
from stylize.runtime.extra_inputs import Extras
from stylize.runtime.frame import Frame
from stylize.runtime.runner import HostArray


@pytest.fixture
def stylizer(tmp_path: Path) -> Iterator[Stylizer]:
    with Stylizer(write_affine(tmp_path / "identity.onnx")) as stylizer:
        yield stylizer


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 6, 3), r"expected \(N, H, W, 3\), got \(8, 6, 3\): for one picture give frames\[None\]"),
        ((8, 6), r"got \(8, 6\)$"),
        ((1, 0, 6, 3), r"at least one pixel, got \(0, 6, 3\)"),
        ((1, 8, 0, 3), r"at least one pixel, got \(8, 0, 3\)"),
        ((1, 8, 6, 4), r"got \(8, 6, 4\) uint8"),
    ],
)
def test_rejects_what_are_no_pictures(shape: tuple[int, ...], message: str, stylizer: Stylizer) -> None:
    with pytest.raises(ValueError, match=message):
        stylizer.run(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        stylizer.run(np.zeros((1, 8, 6, 3)))


def test_closed_is_one_clear_error(stylizer: Stylizer, tmp_path: Path) -> None:
    source, target = write_clip(tmp_path / "in.mp4", ClipSpec(pts=(0, 1))), tmp_path / "out.mp4"
    frame = Frame.from_array(np.zeros((8, 8, 3), np.uint8))
    stylizer.close()
    stylizer.close()
    for use in (
        lambda: stylizer.run(np.zeros((1, 8, 8, 3), np.uint8)),
        lambda: stylizer.stylize(frame),
        lambda: stylizer.begin(frame),
        lambda: stylize_video(stylizer, source, target),
    ):
        with pytest.raises(BackendError, match="this Stylizer is closed: open a new one"):
            use()
    assert {path.name for path in tmp_path.iterdir()} == {"identity.onnx", "in.mp4"}


def test_second_thread_is_refused_and_harms_nothing(
    stylizer: Stylizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = write_clip(tmp_path / "in.mp4", ClipSpec(pts=(0, 1))), tmp_path / "out.mp4"
    picture = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(1, 8, 8, 3)
    is_inside, may_go_on = threading.Event(), threading.Event()
    enqueue = stylizer._runner.enqueue

    def slowly(source: HostArray, *, target: HostArray, cuda_stream: int | None, extras: Extras) -> None:
        is_inside.set()
        assert may_go_on.wait(30)
        enqueue(source, target=target, cuda_stream=cuda_stream, extras=extras)

    monkeypatch.setattr(stylizer._runner, "enqueue", slowly)
    results: list[np.ndarray] = []
    first = threading.Thread(target=lambda: results.append(stylizer.run(picture)))
    first.start()
    try:
        assert is_inside.wait(30)
        with pytest.raises(BackendError, match="serves one thread at a time"):
            stylizer.run(picture)
        with pytest.raises(BackendError, match="serves one thread at a time"):
            stylize_video(stylizer, source, target)
    finally:
        may_go_on.set()
        first.join()
    assert np.array_equal(results[0], picture)
    assert np.array_equal(stylizer.run(picture), picture)

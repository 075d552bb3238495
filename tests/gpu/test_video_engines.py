"""Videos from file to file on the GPU, with what it has of NVDEC and NVENC, and a network that changes nothing."""

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.clips import ClipSpec, frame_number, frame_times, read_frames
from helpers.copy_runner import CopyRunner
from helpers.cpu_nvdec import write_known_clip
from helpers.networks import write_affine
from stylize.runtime import EncodeOptions, RunReport, Stylizer, stylize_video
from stylize.runtime.artifact import open_artifact
from stylize.runtime.cuda import CudaDevice
from stylize.runtime.decode import Decoder
from stylize.runtime.device_bridge import DeviceBridge, DeviceSession
from stylize.runtime.hardware_video import NVENC_OF, nvenc_refusal
from stylize.runtime.resume import ResumeOptions
from stylize.runtime.surface import Surface, host_planes, is_on_device
from stylize.runtime.surface_source import downloaded

pytestmark = pytest.mark.needs_gpu
SOURCES = {
    "libx264": (("preset", "veryfast"), ("crf", "18")),
    "libx265": (("preset", "fast"), ("x265-params", "log-level=error")),
    "libsvtav1": (("preset", "10"),),
}


def rendered(folder: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, **options: object) -> RunReport:
    """`clip` as `out.mp4` in `folder`, by the pass and the engines of the GPU."""
    artifact = open_artifact(write_affine(folder / "identity.onnx"))

    def open_session() -> DeviceSession:
        device = CudaDevice()
        return DeviceSession(device, CopyRunner(artifact), device.open_stream())

    monkeypatch.setattr("stylize.runtime.runner.open_runner", lambda *_, **__: DeviceBridge(artifact, open_session))
    with Stylizer(artifact) as stylizer:
        return stylize_video(stylizer, clip, folder / "out.mp4", **options)  # type: ignore[arg-type]


def difference(first: list[NDArray[np.uint8]], second: list[NDArray[np.uint8]]) -> float:
    """Mean over all pictures."""
    return float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(first, second, strict=True)]))


@pytest.mark.parametrize(("width", "height"), [(640, 360), (642, 362)])
def test_a_video_comes_out_as_it_went_in(
    width: int, height: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whatever decodes and encodes here."""
    clip = write_known_clip(
        tmp_path / "in.mp4", ClipSpec(width=width, height=height, pts=range(16), sound_start_seconds=0.0)
    )
    report = rendered(tmp_path, clip, monkeypatch)
    assert report.num_frames == 16
    assert not any("pictures pass through the CPU" in note for note in report.notes)
    found = read_frames(tmp_path / "out.mp4")
    assert [frame_number(frame) for frame in found] == [frame_number(frame) for frame in read_frames(clip)]
    assert frame_times(tmp_path / "out.mp4") == frame_times(clip)
    assert difference(found, read_frames(clip)) < 3


@pytest.mark.parametrize(("width", "height"), [(640, 360), (650, 370)])
@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [("libx264", "yuv420p"), ("libx265", "yuv420p"), ("libx265", "yuv420p10le"), ("libsvtav1", "yuv420p")],
)
def test_nvdec_makes_the_pictures_of_the_cpu(codec: str, pix_fmt: str, width: int, height: int, tmp_path: Path) -> None:
    """Bit for bit, which the standards demand, at addresses and pitches that are what PyAV says."""
    spec = ClipSpec(
        width=width, height=height, pts=range(24), codec=codec, pix_fmt=pix_fmt, options=SOURCES[codec], matrix=1
    )
    clip = write_known_clip(tmp_path / "in.mkv", spec)
    form = "nv12" if pix_fmt == "yuv420p" else "p010le"
    with av.open(str(clip)) as container:
        wanted = [host_planes(frame.reformat(format=form)) for frame in container.decode(video=0)]
    with Decoder(clip, surface_gpu=0) as decoder:
        surfaces = [item for item in decoder if isinstance(item, Surface)]
    assert len(surfaces) == len(wanted) == 24
    if not is_on_device(surfaces[0].picture):
        pytest.skip("; ".join(decoder.notes))
    for surface, planes in zip(surfaces, wanted, strict=True):
        assert all(np.array_equal(*pair) for pair in zip(host_planes(downloaded(surface.picture)), planes, strict=True))


@pytest.mark.parametrize("crop", ["64,8,0,0", "0,0,6,10"], ids=["left and above", "right and below"])
def test_a_border_that_the_stream_hides_is_not_shown(crop: str, tmp_path: Path) -> None:
    """FFmpeg cuts pictures of NVDEC off on the right and below only; the CPU has to decode the others."""
    spec = ClipSpec(width=640, height=360, pts=range(8), options=(("x264-params", f"crop-rect={crop}"),), matrix=1)
    clip = write_known_clip(tmp_path / "in.mkv", spec)
    with av.open(str(clip)) as container:
        wanted = [frame.reformat(format="nv12") for frame in container.decode(video=0)]
    with Decoder(clip, surface_gpu=0) as decoder:
        found = [downloaded(item.picture).reformat(format="nv12") for item in decoder if isinstance(item, Surface)]
    for picture, reference in zip(found, wanted, strict=True):
        assert (picture.width, picture.height) == (reference.width, reference.height)
        assert all(np.array_equal(*pair) for pair in zip(host_planes(picture), host_planes(reference), strict=True))


@pytest.mark.parametrize("resume", [None, ResumeOptions(segment_frames=8)], ids=["from the GPU", "in segments"])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("codec", NVENC_OF.values())
def test_nvenc_writes_the_pictures_in_order(
    codec: str, pix_fmt: str, resume: ResumeOptions | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if refusal := nvenc_refusal(codec, "nv12" if pix_fmt == "yuv420p" else "p010le", 0):
        pytest.skip(refusal)
    clip = write_known_clip(tmp_path / "in.mp4", ClipSpec(width=642, height=362, pts=range(60)))
    encode = EncodeOptions(codec=codec, pix_fmt=pix_fmt)
    report = rendered(tmp_path, clip, monkeypatch, encode=encode, resume=resume)
    assert report.encoder.startswith(codec)
    found = read_frames(tmp_path / "out.mp4")
    assert [frame_number(frame) for frame in found] == [frame_number(frame) for frame in read_frames(clip)]
    assert frame_times(tmp_path / "out.mp4") == frame_times(clip)
    assert difference(found, read_frames(clip)) < 4

"""Videos whose pictures stay on the device, from file to file, with a device of threads in the GPU's place.

What the GPU's own decoder and encoder do is for tests/gpu; here FFmpeg's on the CPU stand in, as they do on a machine
without them.
"""

import os
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from helpers.clips import ClipSpec, write_clip
from helpers.host_device import HostDevice, HostRunner
from helpers.networks import write_affine, write_colors
from stylize.benchmarks.clip_file import write_clip as write_pictures
from stylize.benchmarks.clips import generated_scenes
from stylize.runtime import EncodeOptions, FinishOptions, RunReport, Selection, Stylizer, stylize_video
from stylize.runtime.artifact import open_artifact
from stylize.runtime.contract import ModelContract
from stylize.runtime.decode import Decoder
from stylize.runtime.device_bridge import DeviceBridge, DeviceSession
from stylize.runtime.encode import Encoder
from stylize.runtime.errors import OptionError, OutputMediaError
from stylize.runtime.hardware_video import NVENC_OF
from stylize.runtime.join import join
from stylize.runtime.output import Result
from stylize.runtime.resume import ResumeOptions
from stylize.runtime.surface import Surface
from stylize.runtime.surface_source import SurfaceSource
from stylize.runtime.video_encoder import VideoEncoder


class Rig:
    """Renders the same on the CPU and on a device of threads."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch
        self.model = write_affine(folder / "negative.onnx", scale=-1, offset=1)
        self.device = HostDevice(seed=3)
        self.num_surfaces = 0

    def render(
        self, clip: Path, *, suffix: str = ".mkv", on_device: bool, **options: object
    ) -> tuple[RunReport, list[NDArray[np.uint8]]]:
        artifact = open_artifact(self.model)

        def open_session() -> DeviceSession:
            runner = HostRunner(artifact, self.device)
            runner.activate()
            return DeviceSession(self.device, runner, self.device.open_stream())

        target = self.folder / f"{'device' if on_device else 'cpu'}{suffix}"
        with self._monkeypatch.context() as patch:
            if on_device:
                patch.setattr(
                    "stylize.runtime.runner.open_runner", lambda *_, **__: DeviceBridge(artifact, open_session)
                )
                finish = Surface.finish
                patch.setattr(Surface, "finish", lambda surface, picture: self._count() or finish(surface, picture))
            names = ("strength", "style_scale", "style_mix", "seed")
            stylizer_options = {name: options.pop(name) for name in names if name in options}
            with Stylizer(self.model, **stylizer_options) as stylizer:  # type: ignore[arg-type]
                report = stylize_video(stylizer, clip, target, **options)  # type: ignore[arg-type]
        with av.open(str(target)) as container:
            return report, [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

    def _count(self) -> None:
        self.num_surfaces += 1

    def both(self, clip: Path, *, is_lossy: bool = False, **options: object) -> RunReport:
        """Render both ways and compare: the matrices and filters of swscale and of the kernels differ a little."""
        encode = options.pop("encode", EncodeOptions(crf=0))
        _, wanted = self.render(clip, on_device=False, encode=encode, **options)
        report, found = self.render(clip, on_device=True, encode=encode, **options)
        assert len(found) == len(wanted)
        differences = [np.abs(a.astype(int) - b) for a, b in zip(found, wanted, strict=True)]
        assert max(difference.mean() for difference in differences) < (3.0 if is_lossy else 1.0)
        assert max(np.percentile(difference, 99) for difference in differences) <= (12 if is_lossy else 3)
        assert self.device.allocated_bytes == 0
        return report


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "spec",
    [
        ClipSpec(sound_start_seconds=0.0, subtitles=((0.1, "one"),)),
        ClipSpec(width=50, height=38),
        ClipSpec(pix_fmt="yuv420p10le", matrix=9, color_range=1),
        ClipSpec(color_range=2, matrix=5),
    ],
    ids=["sound and subtitles", "odd runs", "10 bits, BT.2020", "full range"],
)
def test_a_video_of_surfaces_is_that_of_the_cpu(spec: ClipSpec, rig: Rig) -> None:
    clip = write_clip(rig.folder / "in.mkv", spec)
    report = rig.both(clip)
    assert rig.num_surfaces == 10, "the pictures stayed surfaces"
    assert any(note.startswith("decoded on the CPU: ") for note in report.notes)
    assert not any("NVENC for" in note for note in report.notes), "crf was asked for, so NVENC never was"


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1", "ffv1"])
def test_every_encoder_of_the_cpu_takes_what_was_copied_back(codec: str, rig: Rig) -> None:
    clip = write_clip(rig.folder / "in.mp4", ClipSpec(width=128, height=96))
    report = rig.both(clip, encode=EncodeOptions(codec=codec), is_lossy=codec != "ffv1")
    assert report.encoder.startswith(codec)
    assert rig.num_surfaces == 10


def test_segments_are_made_of_surfaces_too(rig: Rig) -> None:
    clip = write_clip(rig.folder / "in.mp4", ClipSpec(width=50, height=38, sound_start_seconds=0.0))
    report = rig.both(clip, resume=ResumeOptions(segment_frames=4))
    assert rig.num_surfaces == 10
    assert report.num_frames == 10
    assert not list(rig.folder.glob(".*"))


def test_without_nvenc_the_report_says_what_encodes_and_why(rig: Rig) -> None:
    clip = write_clip(rig.folder / "in.mp4")
    report, frames = rig.render(clip, suffix=".mp4", on_device=True)
    assert len(frames) == 10
    assert report.encoder == "libx264, yuv420p"
    assert [note for note in report.notes if note.startswith("encoded on the CPU: no NVENC for nv12 (")]
    assert report.backend == "threads"


@pytest.fixture
def nvenc(monkeypatch: pytest.MonkeyPatch) -> str:
    """An encoder of the CPU that is taken for NVENC; it has the same pixel formats but for the GPU's own."""
    for name, value in (("NVENC_OF", {"libx264": "libx264"}), ("gpu_refusal", lambda _gpu: "")):
        monkeypatch.setattr(f"stylize.runtime.video_encoder.{name}", value)
    monkeypatch.setattr("stylize.runtime.video_encoder.nvenc_refusal", lambda _codec, _pix_fmt, _gpu: "")
    return "libx264"


def test_nvenc_takes_frames_where_surfaces_do_not_fit_the_engine(rig: Rig, nvenc: str) -> None:
    """It was to be opened by the first surface, and none comes."""
    contract = ModelContract(network="affine", style="negative", size_multiple=4, fixed_size=(40, 32))
    write_affine(rig.model, scale=-1, offset=1, contract=contract, shape=(1, 3, 32, 40))
    clip = write_clip(rig.folder / "in.mp4")
    report = rig.both(clip, encode=EncodeOptions(encoder_options=(("crf", "0"),)))
    assert rig.num_surfaces == 0
    assert any("scaled to the one size of the engine" in note for note in report.notes)
    report, _ = rig.render(clip, on_device=True)
    assert report.encoder == f"{nvenc}, nv12"


def test_segments_by_nvenc_are_joined_under_its_header(rig: Rig, nvenc: str) -> None:
    """It is opened before the first surface, as for the header, and so takes what was copied back."""
    clip = write_clip(rig.folder / "in.mp4", ClipSpec(width=50, height=38, sound_start_seconds=0.0))
    encode = EncodeOptions(encoder_options=(("crf", "0"),))
    report = rig.both(clip, encode=encode, resume=ResumeOptions(segment_frames=4))
    assert rig.num_surfaces == report.num_frames == 10
    report, _ = rig.render(clip, on_device=True, resume=ResumeOptions(segment_frames=4))
    assert report.encoder == f"{nvenc}, nv12"


def test_segments_under_other_headers_are_not_joined(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another kind of GPU would write them, or the CPU of a machine without one that goes on."""
    clip = write_clip(rig.folder / "in.mp4")
    defaults = "stylize.runtime.video_encoder._DEFAULT_OPTIONS"

    def stop(done: int, _total: int | None) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rig.render(clip, on_device=True, resume=ResumeOptions(segment_frames=4), on_progress=stop)
    with monkeypatch.context() as patch:
        patch.setattr(defaults, {"libx264": {"preset": "ultrafast"}})
        with pytest.raises(
            OptionError, match="begun by libx264 under another header than libx264, yuv420p writes here"
        ):
            rig.render(clip, on_device=True, resume=ResumeOptions(segment_frames=4))

    def joined_elsewhere(*arguments: object, **others: object) -> Result:
        with monkeypatch.context() as patch:
            patch.setattr(Encoder, "header", "of another GPU")
            return join(*arguments, **others)  # type: ignore[arg-type]

    monkeypatch.setattr("stylize.runtime.segmented_output.join", joined_elsewhere)
    with pytest.raises(
        OutputMediaError, match="segments of libx264 do not fit the header that libx264, yuv420p writes"
    ):
        rig.render(clip, on_device=True, resume=ResumeOptions(segment_frames=4))


@pytest.mark.parametrize(
    ("asked", "encoded", "stays_on_device"),
    [
        (None, "nv12", True),
        ("yuv420p", "nv12", True),
        ("yuv420p10le", "p010le", True),
        ("p010le", "p010le", True),
        ("yuv444p", "yuv444p", False),
    ],
)
def test_nvenc_gets_surfaces_in_the_form_it_reads(
    asked: str | None, encoded: str, stays_on_device: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyAV takes interleaved chroma alone from the memory of a GPU."""
    monkeypatch.setattr("stylize.runtime.video_encoder.gpu_refusal", lambda _gpu: "")
    with Decoder(write_clip(tmp_path / "in.mp4")) as decoder, av.open(str(tmp_path / "out.mp4"), "w") as container:
        options = EncodeOptions(codec="h264_nvenc", pix_fmt=asked)
        encoder = VideoEncoder(container, info=decoder.info, options=options, target="out.mp4", surface_gpu=1)
        assert (encoder.description, encoder.is_opened_by_frame) == (f"h264_nvenc, {encoded}", stays_on_device)
        assert encoder.stream.codec_context.pix_fmt == ("cuda" if stays_on_device else encoded)
        assert encoder.stream.options["gpu"] == "1"


@pytest.mark.parametrize("codec", NVENC_OF.values())
@pytest.mark.parametrize("is_live", [False, True])
def test_options_for_nvenc_are_those_it_has(codec: str, is_live: bool, tmp_path: Path) -> None:
    with Decoder(write_clip(tmp_path / "in.mp4")) as decoder, av.open(str(tmp_path / "out.mkv"), "w") as container:
        options = EncodeOptions(codec=codec, is_live=is_live)
        encoder = VideoEncoder(container, info=decoder.info, options=options, target="out.mkv", surface_gpu=0)
        given, known = encoder.stream.options, encoder.stream.codec_context.supported_options.private
        assert {"cq", "rc", "gpu"} <= set(given) <= {option.name for option in known}
        assert is_live == ("forced-idr" in given)


def test_controls_of_the_artist_are_those_of_the_cpu(rig: Rig) -> None:
    clip = write_clip(rig.folder / "in.mp4")
    mask = rig.folder / "mask.png"
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, 20:] = 255
    av.VideoFrame.from_ndarray(picture, "rgb24").save(mask)
    finish = FinishOptions(keep_colors=True, mask=mask, mask_feather_px=6, fade_in_seconds=0.2)
    rig.both(clip, finish=finish, strength=0.7)
    assert rig.num_surfaces == 10


def test_steadying_is_that_of_the_cpu(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same cut is found and, where noise is all that changes, the same is left of it. OpenCV is not needed."""
    scenes = np.concatenate([generated_scenes(num_frames=1)[number].frames().repeat(5, axis=0) for number in (0, 1)])
    grey = scenes.mean(axis=-1, keepdims=True)  # noise of colour would show the filters of chroma, which differ
    noisy = grey + np.random.default_rng(0).normal(0, 4 / 255, grey.shape)
    frames = (np.clip(noisy, 0, 1) * 255).round().astype(np.uint8).repeat(3, axis=-1)
    clip = rig.folder / "in.mkv"
    write_pictures(clip, frames[:, :, :-1], options=EncodeOptions(crf=0))
    finish = FinishOptions(steady=0.9, fade_in_seconds=0.04)
    report = rig.both(clip, finish=finish)
    assert rig.num_surfaces == 10
    assert report.scene_cut_seconds == (0.2,)
    monkeypatch.setitem(sys.modules, "cv2", None)
    (_, plain), (_, steadied) = (
        rig.render(clip, on_device=True, finish=FinishOptions(steady=steady)) for steady in (0.0, 0.9)
    )
    change, calmer = (np.abs(clip[4].astype(int) - clip[3]).mean() for clip in (plain, steadied))
    assert calmer < 0.5 * change


def test_a_mix_that_changes_with_every_picture_is_that_of_the_cpu(rig: Rig) -> None:
    write_colors(rig.model, style_names=("red", "green", "blue"))
    clip = write_clip(rig.folder / "in.mp4", ClipSpec(width=50, height=38))
    rig.both(clip, style_mix="0:red;0.3:0,1,0;0.36:blue")
    assert rig.num_surfaces == 10


def test_noise_is_that_of_the_cpu(rig: Rig) -> None:
    write_colors(rig.model, takes_noise=True)
    clip = write_clip(rig.folder / "in.mp4", ClipSpec(width=50, height=38))
    (_, wanted), (_, found), (_, others) = (
        rig.render(clip, on_device=on_device, seed=seed) for on_device, seed in ((False, 1), (True, 1), (True, 2))
    )
    assert rig.num_surfaces == 20
    same, other = (np.corrcoef(frames[5].ravel(), wanted[5].ravel())[0, 1] for frames in (found, others))
    assert same > 0.95, "but for the filters of chroma, which noise shows more than any picture"
    assert abs(other) < 0.1


def test_even_rate_and_part_are_those_of_the_cpu(rig: Rig) -> None:
    clip = write_clip(rig.folder / "in.mp4", ClipSpec(pts=tuple(range(30))))
    report = rig.both(clip, selection=Selection(start_seconds=Fraction(2, 5), frame_rate=Fraction(50)))
    assert report.num_frames == 40


@pytest.mark.parametrize(
    ("spec", "options", "reason"),
    [
        (ClipSpec(pix_fmt="yuv444p"), {}, "pictures of yuv444p are not 4:2:0"),
        (ClipSpec(rotation_degrees=90), {}, "turned upright"),
        (ClipSpec(), {"selection": Selection(width=40, height=30)}, "scaled"),
    ],
    ids=["4:4:4", "turned", "scaled"],
)
def test_what_the_kernels_cannot_do_passes_through_the_cpu_and_is_said(
    spec: ClipSpec, options: dict[str, object], reason: str, rig: Rig
) -> None:
    clip = write_clip(rig.folder / "in.mp4", spec)
    report = rig.both(clip, **options)
    assert rig.num_surfaces == 0
    assert [note for note in report.notes if note.startswith("pictures pass through the CPU: ") and reason in note]


@pytest.mark.parametrize("options", [{"encode": EncodeOptions(crf=0, pix_fmt="yuv444p")}, {"style_scale": 0.5}])
def test_other_outputs_pass_through_the_cpu(options: dict[str, object], rig: Rig) -> None:
    rig.both(write_clip(rig.folder / "in.mp4"), **options)
    assert rig.num_surfaces == 0


def test_a_gif_is_written_from_frames(rig: Rig) -> None:
    clip = write_clip(rig.folder / "in.mp4")
    report, frames = rig.render(clip, suffix=".gif", on_device=True)
    assert len(frames) == report.num_frames == 10


def test_a_size_that_changes_in_mid_stream_is_brought_to_the_first(rig: Rig) -> None:
    parts = [write_clip(rig.folder / f"{width}.ts", ClipSpec(width=width, height=48)) for width in (64, 80)]
    clip = rig.folder / "in.ts"
    clip.write_bytes(b"".join(part.read_bytes() for part in parts))
    report, frames = rig.render(clip, on_device=True)
    assert {frame.shape for frame in frames} == {(48, 64, 3)}
    assert rig.num_surfaces == len(frames) == report.num_frames
    assert any("changes its size to 80x48" in note for note in report.notes)


class Engine:
    """A decoder of the GPU as FFmpeg has it: asked for, and then the pictures come from it or not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_opened = 0
        monkeypatch.setattr("stylize.runtime.surface_source.nvdec_refusal", lambda _gpu: "")
        monkeypatch.setattr("stylize.runtime.surface_source.nvdec", lambda _gpu: None)
        configure = SurfaceSource.configure

        def configured(source: SurfaceSource, context: VideoCodecContext) -> list[str]:
            if source._refusal:
                return configure(source, context)
            self.num_opened += 1
            context.thread_count = 1
            return []

        monkeypatch.setattr(SurfaceSource, "configure", configured)


def test_what_nvdec_refuses_is_decoded_by_all_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's decoder is opened with one thread, in which FFmpeg goes on where the GPU does not take the stream."""
    engine, clip = Engine(monkeypatch), write_clip(tmp_path / "in.mp4", ClipSpec(pix_fmt="yuv420p10le"))
    with Decoder(clip, surface_gpu=0, num_threads=3) as decoder:
        assert decoder.video_stream.codec_context.thread_count == 3
        assert decoder.notes[0] == "decoded on the CPU: NVDEC refuses yuv420p10le of 64x48"
        assert len([item for item in decoder if isinstance(item, Surface)]) == decoder.num_frames == 10
    assert engine.num_opened == 1


def test_a_pipe_that_nvdec_refuses_is_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Engine(monkeypatch)
    clip, pipe = write_clip(tmp_path / "in.mkv", ClipSpec()), tmp_path / "pipe.mkv"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(clip.read_bytes()))
    writer.start()
    with Decoder(pipe, surface_gpu=0) as decoder:
        assert "decoded on the CPU: NVDEC refuses yuv420p of 64x48" in decoder.notes
        assert len([item for item in decoder if isinstance(item, Surface)]) == 10
    writer.join()


def test_a_border_that_the_stream_hides_is_left_to_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg cuts it off of pictures in host memory, of those on a GPU only right and below."""
    Engine(monkeypatch)
    spec = ClipSpec(width=128, options=(("x264-params", "crop-rect=64,8,0,0"),))
    with av.open(str(write_clip(tmp_path / "in.mp4", spec))) as container:
        shown = next(container.decode(video=0))
        context = container.streams.video[0].codec_context
        assert (shown.width, shown.height) == (context.width, context.height) == (64, 40), "as decoded on the CPU"
        monkeypatch.setattr("stylize.runtime.surface_source.is_on_device", lambda _picture: True)
        source_of_surfaces = SurfaceSource(0)
        assert source_of_surfaces.refuse(shown, context) == ""
        on_gpu = av.VideoFrame(128, 48, "nv12")
        reason = "NVDEC leaves the border that the stream hides, 64x40 of 128x48 are to be shown"
        assert source_of_surfaces.refuse(on_gpu, context) == reason
        assert source_of_surfaces.hwaccel is None

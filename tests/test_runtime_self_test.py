"""`stylize-run --self-test` passes here, and fails when any of its properties is broken."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import onnx
import pytest

from stylize.runtime import Stylizer, open_artifact, self_test
from stylize.runtime.carry import _Copy
from stylize.runtime.cli import main
from stylize.runtime.clock import Clock
from stylize.runtime.color import Color, ColorConverter
from stylize.runtime.frame import Frame
from stylize.runtime.identity import write_identity
from stylize.runtime.network_pass import NetworkPass
from stylize.runtime.picture_filter import PictureFilter
from stylize.runtime.self_test import CASES, CaseResult, run_self_test
from stylize.runtime.video_encoder import VideoEncoder

NAMES = [case.name for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_property_survives(case: self_test.Case) -> None:
    (result,) = run_self_test([case])
    assert result.is_ok, result.finding


def test_identity_is_a_valid_model(tmp_path: Path) -> None:
    path = write_identity(tmp_path / "identity.onnx")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert open_artifact(path).contract.network == "identity"
    frames = np.random.default_rng(0).integers(0, 256, (1, 33, 47, 3), dtype=np.uint8)
    with Stylizer(path) as stylizer:
        assert np.array_equal(stylizer.run(frames), frames)


def hold_first_picture(patch: pytest.MonkeyPatch) -> None:
    first: list[np.ndarray] = []

    def begin(_self: NetworkPass, frame: Frame, **_options: object) -> Callable[[], None]:
        first.append(np.stack(frame.planes))
        for plane, held in zip(frame.planes, first[0], strict=True):
            plane[:] = held
        return lambda: None

    patch.setattr(NetworkPass, "begin", begin)


def count_frames(patch: pytest.MonkeyPatch) -> None:
    count = iter(range(1000))
    patch.setattr(Clock, "time_of", lambda _self, _picture: (next(count) * 40, 40))


def delay_sound(patch: pytest.MonkeyPatch) -> None:
    original = _Copy.packets_from

    def packets_from(self: _Copy, packet: av.Packet) -> list[av.Packet]:
        ticks = round(1 / (25 * packet.time_base))  # one frame
        packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return original(self, packet)

    patch.setattr(_Copy, "packets_from", packets_from)


def drop_sound(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_Copy, "packets_from", lambda _self, _packet: [])


def mix_matrices(patch: pytest.MonkeyPatch) -> None:
    original = ColorConverter.frame_from_picture

    def frame_from_picture(
        self: ColorConverter, picture: av.VideoFrame, *, color: Color, width: int, height: int
    ) -> Frame:
        wrong = Color(matrix=9, is_full_range=color.is_full_range)
        return original(self, picture, color=wrong, width=width, height=height)

    patch.setattr(ColorConverter, "frame_from_picture", frame_from_picture)


def mix_ranges(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("stylize.runtime.video_encoder.VideoEncoder._choose_pix_fmt", lambda _self, _codec: "yuvj420p")


def always_420(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(VideoEncoder, "_choose_pix_fmt", lambda _self, _codec: "yuv420p")


def leave_lying(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PictureFilter, "push", lambda _self, picture: [picture])


def shear_odd_sizes(patch: pytest.MonkeyPatch) -> None:
    def grown(frame: Frame, width: int, height: int) -> Frame:
        sheared = Frame.blank(width, height)
        sheared.copy_time_from(frame)
        for target, source in zip(sheared.planes, frame.planes, strict=True):
            target[:] = np.resize(source, (height, width))
        return sheared

    patch.setattr("stylize.runtime.video_encoder._grown", grown)


def swap_matrices(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("stylize.runtime.color._SWSCALE_MATRIX", {1: 5, 6: 1})  # both ways


COLORS = [name for name in NAMES if name.endswith("bits")]
SEEN = [name for name in NAMES if name.endswith("as RGB")]
BREAKS: list[tuple[Callable[[pytest.MonkeyPatch], None], list[str]]] = [
    (hold_first_picture, ["frame order"]),
    (count_frames, ["variable frame rate"]),
    (delay_sound, ["beep and flash"]),
    (drop_sound, ["beep and flash"]),
    (mix_matrices, COLORS),
    (swap_matrices, SEEN),
    (mix_ranges, COLORS),
    (always_420, ["BT.709 limited, 4:4:4, 8 bits", "BT.709 limited, 4:2:0, 10 bits"]),
    (leave_lying, ["rotation"]),
    (shear_odd_sizes, ["odd size"]),
]


@pytest.mark.parametrize(("break_it", "names"), BREAKS, ids=[function.__name__ for function, _ in BREAKS])
def test_broken_property_is_found(
    break_it: Callable[[pytest.MonkeyPatch], None], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)
    results = list(run_self_test([case for case in CASES if case.name in names]))
    assert [result.name for result in results if not result.is_ok] == names


def test_one_line_for_each_property_and_exit_code() -> None:
    command = [sys.executable, "-c", "from stylize.runtime.cli import main; main()", "--self-test"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert [line[8:40].rstrip() for line in result.stdout.splitlines()] == NAMES


def test_failure_sets_the_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failure = CaseResult(name="colour", is_ok=False, finding="off by 9")
    monkeypatch.setattr("stylize.runtime.cli_options.run_self_test", lambda: iter([failure]))
    monkeypatch.setattr("sys.argv", ["stylize-run", "--self-test"])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 1
    assert capsys.readouterr().out.split() == ["FAILED", "colour", "off", "by", "9"]

"""Variants of built-in styles: how they are named, asked for, and chosen by measuring."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import pytest

from helpers.clips import ClipSpec, write_clip
from helpers.networks import write_affine
from stylize.runtime import Quality, Selection, artifact, builtin_styles, open_artifact
from stylize.runtime.artifact import Artifact
from stylize.runtime.cli import run
from stylize.runtime.errors import OptionError
from stylize.runtime.frame import Frame
from stylize.runtime.quality import choose_variant, frames_per_second


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A style in three variants, one in one, and one whose name only looks like a variant's."""
    folder = tmp_path / "models"
    folder.mkdir()
    first = write_affine(folder / "ink.onnx", scale=-1, offset=1)
    for name in ("ink-quality", "ink-fastest", "oil", "the-fastest"):
        shutil.copy(first, folder / f"{name}.onnx")
    (folder / "ink.md").write_text("# ink\n\nBlack on white.\n")
    monkeypatch.setattr(artifact, "_models_folder", lambda: folder)
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "in.mp4", ClipSpec())  # 64x48 at 25 frames per second


class Clock:
    """A clock in place of the machine's, so that the time a network takes does not depend on what else runs."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the probe looks at."""
    clock = Clock()
    monkeypatch.setattr("stylize.runtime.quality.time", clock)
    return clock


class Sleeper:
    """A network that takes a known time for each frame, two of them side by side."""

    num_in_flight = 2

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds, self._clock = seconds, clock
        self.sizes: set[tuple[int, int]] = set()

    def begin(self, frame: Frame) -> Callable[[], None]:
        self.sizes.add((frame.width, frame.height))
        self._clock.now += self._seconds
        return lambda: None


def test_variants_are_listed_under_their_style(models: Path) -> None:
    styles = {style.name: [*style.variants] for style in builtin_styles()}
    assert styles == {
        "ink": [Quality.QUALITY, Quality.BALANCED, Quality.FASTEST],
        "oil": [Quality.BALANCED],
        "the-fastest": [Quality.BALANCED],
    }
    assert next(iter(builtin_styles())).description == "Black on white."
    assert open_artifact("ink-fastest").path == models / "ink-fastest.onnx"
    assert open_artifact("ink").path == models / "ink.onnx"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"quality": 0.02, "balanced": 0.01, "fastest": 0.005}, "ink-quality"),
        # 27.8 frames per second alone, and decoder and encoder take a fifth of that.
        ({"quality": 0.036, "balanced": 0.01, "fastest": 0.005}, "ink"),
        ({"quality": 0.2, "balanced": 0.2, "fastest": 0.1}, "ink-fastest"),
    ],
)
def test_auto_takes_the_best_that_keeps_up(
    seconds: dict[str, float], expected: str, models: Path, clip: Path, clock: Clock
) -> None:
    by_name = {
        "ink-quality": Sleeper(seconds["quality"], clock),
        "ink": Sleeper(seconds["balanced"], clock),
        "ink-fastest": Sleeper(seconds["fastest"], clock),
    }

    @contextmanager
    def load(chosen: Artifact) -> Iterator[Sleeper]:
        yield by_name[chosen.name]

    chosen, why = choose_variant("ink", Quality.AUTO, clip, selection=Selection(width=32, height=24), load=load)
    assert chosen.name == expected
    assert "for 32x24 at 25 frames per second" in why
    assert why.endswith("none keeps up") == (expected == "ink-fastest")
    assert by_name["ink-quality"].sizes == {(32, 24)}


def test_auto_follows_the_rate_asked_for(models: Path, clip: Path, clock: Clock) -> None:
    @contextmanager
    def load(chosen: Artifact) -> Iterator[Sleeper]:
        yield Sleeper(0.06, clock)  # 13 frames per second beside a decoder: too slow for 25, enough for 10

    selection = Selection(frame_rate=Fraction(10))
    assert choose_variant("ink", Quality.AUTO, clip, selection=selection, load=load)[0].name == "ink-quality"


def test_frames_per_second_counts_what_was_done(clock: Clock) -> None:
    assert frames_per_second(Sleeper(0.01, clock), width=16, height=16) == pytest.approx(100)


def test_large_frames_are_measured_by_smaller_ones(clock: Clock) -> None:
    network = Sleeper(0.01, clock)
    fps = frames_per_second(network, width=3840, height=2160)  # nine times 1280x720
    assert network.sizes == {(1280, 720)}
    assert fps == pytest.approx(100 / 9)


def test_the_report_names_the_variant_and_why(models: Path, clip: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = ["ink", str(clip), str(tmp_path / "out.mp4"), "--quality", "auto", "--json", str(report), "--quiet"]
    run.main(command, standalone_mode=False)
    facts = json.loads(report.read_text())
    assert facts["model"] in ("ink-quality", "ink", "ink-fastest")
    assert facts["notes"][0].startswith("variant ")
    run.main([*command[:4], "fastest", *command[5:]], standalone_mode=False)
    facts = json.loads(report.read_text())
    assert facts["model"] == "ink-fastest"


def test_rejects_what_has_no_such_variant(models: Path, clip: Path) -> None:
    def load(chosen: Artifact) -> Sleeper:
        raise AssertionError(f"{chosen.name} must not be loaded")

    for model, quality, source, reason in (
        ("oil", Quality.FASTEST, clip, "oil has no variant fastest, choose one of balanced"),
        (str(models / "ink.onnx"), Quality.FASTEST, clip, "is for built-in styles"),
        ("ink", Quality.AUTO, "-", "standard input"),
    ):
        with pytest.raises(OptionError, match=reason):
            choose_variant(model, quality, source, selection=Selection(), load=load)  # type: ignore[arg-type]

"""Models of several styles and models that take noise: what the runtime gives them beside the frame."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from helpers.clips import ClipSpec, read_frames, write_clip
from helpers.commands import RunHere
from helpers.networks import write_affine, write_colors
from stylize.runtime import Backend, Selection, Stylizer, open_artifact, stylize_video
from stylize.runtime.contract import ModelContract
from stylize.runtime.errors import OptionError
from stylize.runtime.extra_inputs import ExtraInputs, StyleMix, noise_picture

STYLES = ("red", "green", "blue")
BACKENDS = [Backend.ONNXRUNTIME, Backend.OPENVINO]
FRAME = np.full((1, 8, 12, 3), 100, np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extra")
    write_colors(folder / "colors.onnx", style_names=STYLES)
    write_colors(folder / "grain.onnx", takes_noise=True)
    write_affine(
        folder / "weave.onnx",
        contract=ModelContract(network="weave", style="weave", size_multiple=4, makes_textures=True),
    )
    write_affine(folder / "identity.onnx")
    write_clip(folder / "in.mp4", ClipSpec())
    return folder


@pytest.mark.parametrize(
    ("text", "seconds", "expected"),
    [
        ("0.3,0.7,0", 0, (0.3, 0.7, 0)),
        ("1,1,2", 9, (0.25, 0.25, 0.5)),
        ("green", 3, (0, 1, 0)),
        ("0:1,0,0;5:0,1,0", -1, (1, 0, 0)),
        ("0:1,0,0;5:0,1,0", 1, (0.8, 0.2, 0)),
        ("0:1,0,0;5:0,1,0", 7, (0, 1, 0)),
        ("0:red; 2:green; 1:00:blue", 31, (0, 0.5, 0.5)),
        # Each moment adds up to 1 before they are mixed: equal steps in time are equal steps in style.
        ("0:10,0,0;4:0,1,0", 2, (0.5, 0.5, 0)),
    ],
)
def test_style_mix_in_words(text: str, seconds: float, expected: tuple[float, ...]) -> None:
    assert StyleMix.parse(text).shares_at(seconds, STYLES) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is neither shares such as 0.3,0.7 nor the name of a style"),
        ("1,a", "'1,a' is neither"),
        ("1,0,0;2:0,1,0", "'1,0,0' lacks its moment, as in 0:1,0;5:0,1"),
        ("x:1,0,0;2:0,1,0", "'x' is not a time"),
        ("3:1,0,0;2:0,1,0", r"moments of a style mix must follow each other in time, got \[3.0, 2.0\]"),
        ("-1,2,0", "style mix -1,2,0: shares are 0 or more, and not all 0"),
        ("0,0,0", "not all 0"),
        ("nan,1,0", "shares are 0 or more"),
        ("1,0", "style mix 1,0: 2 shares for the model's 3 styles red, green, blue"),
        ("pink", "there is no style 'pink' in this model, but red, green, blue"),
    ],
)
def test_rejects_style_mix(folder: Path, text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ExtraInputs(open_artifact(folder / "colors.onnx").contract, style_mix=text)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("mix", "expected"),
    [(None, (255, 0, 0)), ((0, 1, 1), (0, 128, 128)), ("blue", (0, 0, 255)), (StyleMix.parse("1,1,0"), (128, 128, 0))],
)
def test_backends_mix_the_styles(
    folder: Path, backend: Backend, mix: str | tuple[float, ...] | StyleMix | None, expected: tuple[int, ...]
) -> None:
    with Stylizer(folder / "colors.onnx", backend=backend, style_mix=mix) as stylizer:
        pixel = stylizer.run(FRAME)[0, 3, 4].astype(int)
    assert abs(pixel - expected).max() <= 1  # half a code value, and bf16 keeps a half exactly


@pytest.mark.parametrize("backend", BACKENDS)
def test_styles_change_with_the_frames_own_times(folder: Path, tmp_path: Path, backend: Backend) -> None:
    """Frames at 0, 0.04, ... s; cut at 0.08 s, after which the moments count."""
    with Stylizer(folder / "colors.onnx", backend=backend, style_mix="0:red;0.16:green;0.2:green") as stylizer:
        report = stylize_video(
            stylizer,
            folder / "in.mp4",
            tmp_path / "%04d.png",
            selection=Selection(start_seconds=Fraction("0.08")),
        )
    shown = [read_frames(path)[0][5, 5].astype(int) for path in sorted(tmp_path.glob("*.png"))]
    assert report.num_frames == len(shown) == 8
    for index, pixel in enumerate(shown):
        green = min(1.0, index * 0.04 / 0.16)
        # The network of two frames at once is in bf16 where the CPU has it: 8 bits.
        assert abs(pixel - np.array([255 * (1 - green), 255 * green, 0])).max() <= 2


def test_one_style_has_no_mix(folder: Path) -> None:
    with pytest.raises(OptionError, match="--style-mix: this model holds one style, identity; drop the option"):
        Stylizer(folder / "identity.onnx", style_mix="0.3,0.7")


@pytest.mark.parametrize("backend", BACKENDS)
def test_noise_is_the_same_in_every_frame_of_a_run(folder: Path, backend: Backend) -> None:
    frames = np.repeat(FRAME, 3, axis=0)
    runs = {}
    for name, seed in (("first", 7), ("again", 7), ("other", 8)):
        with Stylizer(folder / "grain.onnx", backend=backend, seed=seed) as stylizer:
            runs[name] = stylizer.run(frames)
    assert all(np.array_equal(frame, runs["first"][0]) for frame in runs["first"])
    assert np.array_equal(runs["again"], runs["first"])
    assert not np.array_equal(runs["other"], runs["first"])
    assert runs["first"][0].std() > 20


def test_textures_come_from_a_seed_at_any_size(folder: Path, run_here: RunHere) -> None:
    for name, seed in (("a.png", "7"), ("b.png", "7"), ("c.png", "8")):
        result = run_here(folder, "weave.onnx", "noise:", name, "--size", "70x40", "--seed", seed)
        assert result.returncode == 0, result.stderr
        assert "70x40: textures tile where both sides are multiples of 4" in result.stderr
    (first,), (again,), (other,) = (read_frames(folder / name) for name in ("a.png", "b.png", "c.png"))
    # The model returns its noise: nothing between noise and network changed it.
    assert np.array_equal(first, noise_picture(width=70, height=40, seed=7))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("weave.onnx", "in.mp4", "out.mp4"), "weave paints textures from noise: give noise: as the input"),
        (("identity.onnx", "noise:", "o.png"), "noise: is for models that paint textures, identity paints pictures"),
        (("identity.onnx", "in.mp4", "o.mp4", "--size", "64x64"), "--scale sets that of other inputs"),
        (("weave.onnx", "noise:", "o.png", "--size", "64x-1"), "give both sides"),
        (("colors.onnx", "in.mp4", "o.mp4", "--style-mix", "1,0"), "2 shares for the model's 3 styles"),
    ],
)
def test_rejects_what_the_model_cannot_take(
    folder: Path, arguments: tuple[str, ...], message: str, run_here: RunHere
) -> None:
    result = run_here(folder, *arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / arguments[2]).exists()


def test_command_mixes_styles(folder: Path, run_here: RunHere) -> None:
    result = run_here(folder, "colors.onnx", "in.mp4", "mixed.png", "--end", "0.04", "--style-mix", "green")
    assert result.returncode == 0, result.stderr
    assert abs(read_frames(folder / "mixed.png")[0][0, 0].astype(int) - (0, 255, 0)).max() <= 1


def test_contract_keeps_its_styles() -> None:
    contract = ModelContract(network="n", style="a+b", size_multiple=4, style_names=("a", "b"), takes_noise=True)
    assert ModelContract.from_json(contract.to_json()) == contract
    with pytest.raises(ValueError, match="must be several styles, or none"):
        ModelContract(network="n", style="a", size_multiple=4, style_names=("a",))

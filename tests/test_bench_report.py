"""The page: complete in itself, true to the figures, and alive in a browser where there is one."""

import base64
import dataclasses
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.clips import read_frames
from helpers.networks import write_affine
from stylize.benchmarks.cases import ModelUnderTest
from stylize.benchmarks.report import write_report
from stylize.benchmarks.run import BenchOptions, Outcome, run_benchmark
from stylize.benchmarks.speed import SpeedOptions
from stylize.runtime.runner import Backend
from stylize.runtime.stylizer import Stylizer

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NUM_FRAMES = 4


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("page")
    model = write_affine(folder / "half <b>.onnx", scale=0.5)
    options = BenchOptions(
        size_px=(96, 64),
        speed=SpeedOptions(num_rounds=1, num_frames=NUM_FRAMES),
        command="stylize-bench --model 'half <b>.onnx'",
    )
    with Stylizer(model, backend=Backend.ONNXRUNTIME) as stylizer:
        models = [ModelUnderTest(stylizer=stylizer, backend=Backend.ONNXRUNTIME)]
        return run_benchmark(models, options, folder=folder, advance=lambda _: None)


@pytest.fixture(scope="module")
def page(outcome: Outcome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("out") / "report.html"
    write_report(path, outcome)
    return path


class Elements(HTMLParser):
    """Every element with its attributes, and every address any of them loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}]


def test_the_page_loads_nothing_from_anywhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    elements = Elements(text)
    assert elements.addresses
    assert all(address.startswith("data:") for address in elements.addresses)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|https?://", text)
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]


def test_names_from_outside_cannot_become_markup(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "half <b>" not in text
    assert "half &lt;b&gt;" in text


def test_figures_and_the_way_to_repeat_them_are_there(page: Path, outcome: Outcome) -> None:
    text = page.read_text(encoding="utf-8")
    row = next(row for row in outcome.results.steadiness if row.model.startswith("half"))
    assert f"{row.e_stab:.4f}" in text
    assert "stylize-bench --model &#39;half &lt;b&gt;.onnx&#39;" in text
    assert outcome.results.environment.python in text
    tags = Elements(text).tags
    assert tags.count("canvas") == 2
    # Three stages of four frames, and the bins of the histogram.
    assert tags.count("rect") == 3 * NUM_FRAMES + 24


def test_where_and_when_it_flickers_is_shown_before_and_after_steadying(page: Path, outcome: Outcome) -> None:
    text = page.read_text(encoding="utf-8")
    maps = re.findall(r'warping error, ([\w ]+)".*?data:image/png;base64,([^"]+)', text, re.DOTALL)
    assert [name for name, _ in maps] == ["as painted", "steadied"]
    brightness = [cv2.imdecode(np.frombuffer(base64.b64decode(png), np.uint8), 0).mean() for _, png in maps]
    painted, steadied = (row for row in outcome.results.steadiness if row.clip == "demo clip" and row.model != "source")
    assert (brightness[0] > brightness[1]) == (painted.e_stab > steadied.e_stab)
    curves = json.loads(html.unescape(re.findall(r'data-errors="([^"]+)"', text)[0]))
    # e_stab is the root of the mean of the squares of what is drawn.
    for curve, row in zip(curves, (painted, steadied), strict=True):
        assert np.sqrt(np.mean(np.square(curve))) == pytest.approx(row.e_stab)


def test_memory_of_a_gpu_has_a_column_where_there_is_one(page: Path, outcome: Outcome, tmp_path: Path) -> None:
    column = "<th>GPU<br>MB</th>"
    assert column not in page.read_text(encoding="utf-8")
    speed = [dataclasses.replace(row, peak_device_bytes=123_456_789) for row in outcome.results.speed]
    results = dataclasses.replace(outcome.results, speed=speed)
    write_report(tmp_path / "gpu.html", dataclasses.replace(outcome, results=results))
    text = (tmp_path / "gpu.html").read_text(encoding="utf-8")
    assert column in text
    assert "<td>123</td>" in text


def test_a_clip_in_which_nothing_changes_has_a_page(outcome: Outcome, tmp_path: Path) -> None:
    shown = outcome.illustrations[0]
    still = np.repeat(shown.stylized[:1], NUM_FRAMES, axis=0)
    motionless = [
        dataclasses.replace(motion, flow_px=np.zeros_like(motion.flow_px)) for motion in outcome.reference.motions
    ]
    changes = dataclasses.replace(
        outcome,
        reference=dataclasses.replace(outcome.reference, frames=still, motions=motionless),
        illustrations=[dataclasses.replace(shown, stylized=still, steadied=still)],
    )
    write_report(tmp_path / "still.html", changes)
    text = (tmp_path / "still.html").read_text(encoding="utf-8")
    assert "as painted" in text
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]+", "", text), re.IGNORECASE)


def test_the_clip_in_the_page_is_source_beside_stylized_beside_steadied(
    page: Path, outcome: Outcome, tmp_path: Path
) -> None:
    match = re.search(r"data:video/mp4;base64,([^\"]+)", page.read_text(encoding="utf-8"))
    assert match is not None
    (tmp_path / "parts.mp4").write_bytes(base64.b64decode(match[1]))
    frames = read_frames(tmp_path / "parts.mp4")
    assert len(frames) == NUM_FRAMES
    illustration = outcome.illustrations[0]
    assert illustration.steadied is not None
    for frame, *parts in zip(
        frames, outcome.reference.frames, illustration.stylized, illustration.steadied, strict=True
    ):
        expected = np.concatenate(parts, axis=1).astype(np.float32)
        assert frame.shape == expected.shape
        # H.264 at crf 20: a few code values.
        assert np.abs(frame - expected).mean() < 6


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_page_runs_in_a_browser_without_complaint(page: Path) -> None:
    assert BROWSER is not None
    flags = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--enable-logging=stderr",
    )
    completed = subprocess.run(
        [BROWSER, *flags, "--virtual-time-budget=10000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert "CONSOLE" not in completed.stderr
    # Set by the script once the first frame of the clip is on the canvas.
    assert 'data-shown="0"' in completed.stdout

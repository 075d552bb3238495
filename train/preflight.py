"""Minutes before hours: what a style will look like at several strengths and sizes.

One short training at the settings asked for, then an even shorter one from there for each of several
style weights and style sizes: enough to see palette, stroke size and how much content is left.
"""

import dataclasses
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from stylize.train.checkpoint import Checkpoint, network_from_checkpoint
from stylize.train.config import SMALLEST_SCALE_PX, TrainConfig
from stylize.train.data import FramePairs, open_data
from stylize.train.diagnosis import LOST_CONTENT, relative_errors
from stylize.train.frame_pair import FramePair, Window
from stylize.train.loading import batch_of
from stylize.train.loop import Progress, train
from stylize.train.pictures import read_picture
from stylize.train.preview import write_picture

__all__ = ["Trial", "preflight", "suggestion", "write_contact_sheet"]

_STRENGTHS = (0.25, 1.0, 4.0)  # factors of the style weight
_SIZES = (0.5, 1.0)  # factors of the style size
_CROP_PX = 128
_SHOWN_PX = 192
_NUM_SHOWN = 2
_FIRST_STEPS, _TRIAL_STEPS = 250, 60  # 610 in all: about two minutes on two quiet cores
_SHOWN_SEED = 2**31 + 1  # pictures that no training draws
_CAPTION_PX = 22
_GAP_PX = 6


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting and what a short training made of it."""

    style_weight: float
    style_size_px: int
    style_error: float
    """Relative Gram error, mean over the last steps."""
    content_error: float
    pictures: NDArray[np.uint8]
    """(H, W, 3) RGB: the stylized pictures side by side."""

    @property
    def caption(self) -> str:
        """What stands under it."""
        return (
            f"weight {self.style_weight:g}, size {self.style_size_px}: "
            f"style {self.style_error:.2f}, content {self.content_error:.2f}"
        )


def preflight(
    config: TrainConfig, *, device: str | None = None, on_progress: Callable[[float], None]
) -> tuple[list[Trial], NDArray[np.uint8]]:
    """Train briefly at each setting.

    Args:
        config: what the real training will be told; steps, crop and batch are cut down here.
        device: `cpu`, `cuda`, ...; None takes CUDA when there is one.
        on_progress: called with the share that is done; may raise KeyboardInterrupt.

    Returns:
        The trials, weakest first and sizes together, and the pictures they stylized as (H, W, 3) RGB.

    Raises:
        ValueError: a config without --style, or of another loss form than relative.
    """
    if config.loss_form != "relative" or not config.style or config.mode != "stylize":
        raise ValueError("the preflight compares relative errors of styles: use --preset balanced and --style")
    crop_px = max(_CROP_PX, SMALLEST_SCALE_PX << (config.num_scales - 1))
    small = dataclasses.replace(
        config, crop_px=crop_px, batch_size=1, accumulate=1, steps=_FIRST_STEPS, minutes=None, content_size_px=None,
        preview_every=0, checkpoint_every=10**8, tensorboard=None,
    )  # fmt: skip
    total = _FIRST_STEPS + len(_STRENGTHS) * len(_SIZES) * _TRIAL_STEPS
    trials = []
    data_log = logging.getLogger("stylize.train.data")
    level_before = data_log.level
    with tempfile.TemporaryDirectory() as folder, ExitStack() as afterwards:
        afterwards.callback(data_log.setLevel, level_before)
        base, trial = Path(folder) / "base.pth", Path(folder) / "trial.pth"
        train(small, base, resume=False, device=device, on_step=lambda p: on_progress(p.step / total))
        data_log.setLevel(logging.WARNING)  # what the data is has been said; six times more says nothing new
        shown = _shown_pairs(config)
        for number, (weight, size) in enumerate(_settings(config)):
            done = _FIRST_STEPS + number * _TRIAL_STEPS

            def report(progress: Progress, done: int = done) -> None:
                on_progress((done + progress.step) / total)

            tried = dataclasses.replace(
                small, start_from=base, style_weight=weight, style_size_px=size, steps=_TRIAL_STEPS
            )
            checkpoint = train(tried, trial, resume=False, device=device, on_step=report)
            trials.append(_trial(tried, checkpoint, shown))
    return trials, _side_by_side(shown.previous)


def suggestion(trials: Sequence[Trial]) -> Trial:
    """The trial nearest to its style of those whose content is still there; else the one with most content.

    At equal distance (a tenth) the larger style size wins: its strokes show from further away.
    """
    readable = [trial for trial in trials if trial.content_error <= LOST_CONTENT]
    if not readable:
        return min(trials, key=lambda trial: trial.content_error)
    return min(readable, key=lambda trial: (round(trial.style_error, 1), -trial.style_size_px))


def _settings(config: TrainConfig) -> Iterator[tuple[float, int]]:
    for strength in _STRENGTHS:
        for size in _SIZES:
            yield config.style_weight * strength, max(64, round(config.style_size_px * size))


def _shown_pairs(config: TrainConfig) -> FramePair:
    sources = open_data(config.data, Window(crop_px=_SHOWN_PX), cache=config.flow_cache)
    pairs = FramePairs(sources, num_pairs=_NUM_SHOWN, seed=_SHOWN_SEED)
    return batch_of(pairs, _NUM_SHOWN, device=torch.device("cpu"))


@torch.no_grad()
def _trial(config: TrainConfig, checkpoint: Checkpoint, shown: FramePair) -> Trial:
    network = network_from_checkpoint(checkpoint)
    errors = relative_errors(config, checkpoint.losses)
    mix = torch.tensor(config.shares).expand(len(shown.previous), -1) if config.conditional else None
    return Trial(
        style_weight=config.style_weight,
        style_size_px=config.style_size_px,
        style_error=errors.get("style", 0.0),
        content_error=errors.get("content", 0.0),
        pictures=_side_by_side(network(shown.previous, mix)),
    )


def _side_by_side(pictures_N3HW: torch.Tensor) -> NDArray[np.uint8]:
    wide = torch.cat(list(F.pad(pictures_N3HW.float(), (0, _GAP_PX), value=1.0)), dim=2)[:, :, :-_GAP_PX]
    rgb: NDArray[np.uint8] = (wide.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return rgb


def write_contact_sheet(
    path: Path, trials: Sequence[Trial], sources: NDArray[np.uint8], style: Path, best: Trial
) -> None:
    """Write all trials as one picture: content and style above, strengths downwards, sizes across.

    Raises:
        ValueError: the suffix names no kind of picture that can be written.
        OSError: the file cannot be written.
    """
    height, width = sources.shape[:2]
    picture = read_picture(style)
    scale = min(height / picture.shape[0], width / picture.shape[1])
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    thumbnail = np.full_like(sources, 255)
    thumbnail[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    cells = [_cell(sources, "content"), _cell(thumbnail, f"style: {style.stem}")]
    cells += [_cell(trial.pictures, trial.caption + (" <- suggested" if trial is best else "")) for trial in trials]
    rows = [np.hstack(cells[start : start + len(_SIZES)]) for start in range(0, len(cells), len(_SIZES))]
    write_picture(path, torch.from_numpy(np.vstack(rows)).permute(2, 0, 1) / 255)


def _cell(picture: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    cell = np.full((height + _CAPTION_PX + _GAP_PX, width + _GAP_PX, 3), 255, np.uint8)
    cell[:height, :width] = picture
    cv2.putText(
        cell, caption, (2, height + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA
    )  # fmt: skip
    return cell

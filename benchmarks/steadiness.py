"""All steadiness figures of one model on one clip, in one row."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stylize.benchmarks.appearance import (
    StyleStatistics,
    content_correlation,
    gram_distance,
    mean_gradient,
    style_statistics,
)
from stylize.benchmarks.clips import Scene
from stylize.benchmarks.flow import FlowCache, dis_motions, frame_pairs
from stylize.benchmarks.jitter import Model, can_be_shifted, jitter_figures, noisy_still
from stylize.benchmarks.results import SteadinessRow
from stylize.benchmarks.temporal import (
    Clip,
    PairMotion,
    luminance_pair_errors,
    pair_errors,
    relative_error,
    rms,
    static_flicker,
    t_of_px,
)

__all__ = [
    "LONG_GAP",
    "NUM_STEADINESS_FRAMES",
    "ReferenceClip",
    "estimated_reference",
    "exact_reference",
    "source_row",
    "steadiness_row",
]

# CCPL (Wu et al., ECCV 2022) and others after it measure long-term consistency nine frames apart.
LONG_GAP = 9
# Long enough for pairs nine frames apart, short enough for two models in seconds.
NUM_STEADINESS_FRAMES = 16
# Every fourth frame is plenty for statistics of style: neighbours look alike.
_STYLE_STRIDE = 4
_NUM_STILL_FRAMES = 4


@dataclass(frozen=True, kw_only=True)
class ReferenceClip:
    """A source clip with its motion, measured once and shared by all models.

    Attributes:
        name: of the clip.
        frames: (T, H, W, 3) uint8 RGB.
        flow: where the motion comes from.
        motions: of neighbouring frames.
        long_motions: of frames `LONG_GAP` apart; empty for short clips.
    """

    name: str
    frames: NDArray[np.uint8]
    flow: Literal["exact", "ground truth", "DIS medium"]
    motions: Sequence[PairMotion]
    long_motions: Sequence[PairMotion]

    @property
    def extent(self) -> dict[str, int]:
        """Size and length, as rows note them."""
        num_frames, height_px, width_px = self.frames.shape[:3]
        return {"width_px": width_px, "height_px": height_px, "num_frames": num_frames}

    @cached_property
    def e_stab(self) -> float:
        """The clip's own warping error: what noise, light and imperfect flow leave."""
        return rms(pair_errors(self.frames, self.motions))


def estimated_reference(name: str, frames: NDArray[np.uint8], *, cache: FlowCache | None = None) -> ReferenceClip:
    """Measure the motion of any clip.

    Args:
        name: of the clip.
        frames: (T, H, W, 3) uint8 RGB, at least two.
        cache: keeps flow between runs; None measures it.
    """
    return ReferenceClip(
        name=name,
        frames=frames,
        flow="DIS medium",
        motions=dis_motions(frames, frame_pairs(len(frames), gap=1), cache=cache),
        long_motions=dis_motions(frames, frame_pairs(len(frames), gap=LONG_GAP), cache=cache),
    )


def exact_reference(scene: Scene) -> ReferenceClip:
    """A generated clip with the motion it was drawn by."""
    return ReferenceClip(
        name=scene.name,
        frames=(scene.frames() * 255).round().astype(np.uint8),
        flow="exact",
        motions=scene.motions(),
        long_motions=scene.motions(gap=LONG_GAP),
    )


def source_row(reference: ReferenceClip) -> SteadinessRow:
    """The source clip's own figures, the yardstick of every other row."""
    long_error = rms(pair_errors(reference.frames, reference.long_motions)) if reference.long_motions else None
    return SteadinessRow(
        model="source",
        clip=reference.name,
        flow=reference.flow,
        e_stab=reference.e_stab,
        e_stab_luminance=rms(luminance_pair_errors(reference.frames, reference.frames, reference.motions)),
        e_stab_relative=relative_error(reference.e_stab, reference.e_stab),
        e_stab_long=long_error,
        t_of_px=0.0,
        static_flicker=None,
        jitter=None,
        content=1.0,
        style_error=None,
        style_change=0.0,
        sharpness=mean_gradient(reference.frames),
        **reference.extent,
    )


def steadiness_row(
    name: str, model: Model, reference: ReferenceClip, output: Clip, *, style: StyleStatistics | None
) -> SteadinessRow:
    """Everything about one model on one clip.

    Args:
        name: of the model.
        model: stylizes a clip, every frame on its own; runs on a few stills made from the first frame with anything
            to see: clips fade in from black.
        reference: the source and its motion.
        output: (T, H, W, 3), what the model made of the source.
        style: statistics of the style picture, None when it is not known.
    """
    output_statistics = style_statistics(output[::_STYLE_STRIDE])
    long_error = rms(pair_errors(output, reference.long_motions)) if reference.long_motions else None
    still = next(filter(can_be_shifted, reference.frames), None)
    e_stab = rms(pair_errors(output, reference.motions))
    return SteadinessRow(
        model=name,
        clip=reference.name,
        flow=reference.flow,
        e_stab=e_stab,
        e_stab_luminance=rms(luminance_pair_errors(output, reference.frames, reference.motions)),
        e_stab_relative=relative_error(e_stab, reference.e_stab),
        e_stab_long=long_error,
        t_of_px=t_of_px(output, reference.frames),
        static_flicker=None
        if still is None
        else static_flicker(model(noisy_still(still, num_frames=_NUM_STILL_FRAMES))),
        jitter=None if still is None else jitter_figures(still, model),
        content=content_correlation(output, reference.frames),
        style_error=None if style is None else gram_distance(output_statistics, style),
        style_change=gram_distance(output_statistics, style_statistics(reference.frames[::_STYLE_STRIDE])),
        sharpness=mean_gradient(output),
        **reference.extent,
    )

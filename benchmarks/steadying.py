"""A model as `stylize-run --steady` shows it: measured beside the plain one."""

import dataclasses
import time
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from stylize.benchmarks.appearance import StyleStatistics
from stylize.benchmarks.jitter import Model
from stylize.benchmarks.results import SteadinessRow
from stylize.benchmarks.steadiness import ReferenceClip, steadiness_row
from stylize.runtime.finish import Finish, FinishOptions
from stylize.runtime.frame import WHITE, Frame

__all__ = ["steadied_clip", "steadied_row"]

Pixels = NDArray[np.uint8]
_TIME_BASE = Fraction(1, 25)


def steadied_clip(frames: Pixels, stylized: Pixels, *, amount: float) -> tuple[Pixels, list[float]]:
    """A stylized clip after steadying, by the runtime's own parts.

    Args:
        frames: (T, H, W, 3) uint8, the source.
        stylized: the same shape, what a model made of it.
        amount: as `stylize-run --steady` takes it, above 0.

    Returns:
        The steadied clip, and the seconds of processor time of each frame but the first, which is only kept.
    """
    finish = Finish(FinishOptions(steady=amount))
    steadied = np.empty_like(stylized)
    seconds = []
    for index, (source, picture) in enumerate(zip(frames, stylized, strict=True)):
        frame = Frame.from_array(source)
        frame.set_time(index, duration=1, time_base=_TIME_BASE)
        result_CHW = np.ascontiguousarray(np.moveaxis(picture, -1, 0)) * np.float32(WHITE / 255)
        finish.store(result_CHW, frame, weight=1.0)
        begin = time.thread_time()
        finish.settle(frame)
        seconds.append(time.thread_time() - begin)
        steadied[index] = frame.to_array()
    return steadied, seconds[1:]


def steadied_row(
    plain: SteadinessRow,
    model: Model,
    reference: ReferenceClip,
    output: Pixels,
    *,
    style: StyleStatistics | None,
    amount: float,
) -> tuple[SteadinessRow, Pixels]:
    """Everything about a model on a clip once more, steadied, and the steadied clip.

    Args:
        plain: its row without steadying.
        model: stylizes a clip, every frame on its own.
        reference: the source and its motion.
        output: (T, H, W, 3), what the model made of the source.
        style: statistics of the style picture, None when it is not known.
        amount: as `stylize-run --steady` takes it, above 0.
    """
    steadied, seconds = steadied_clip(reference.frames, output, amount=amount)

    def steadied_model(clip: Pixels) -> Pixels:
        return steadied_clip(clip, np.asarray(model(clip), np.uint8), amount=amount)[0]

    row = steadiness_row(f"{plain.model}, steady {amount:g}", steadied_model, reference, steadied, style=style)
    return dataclasses.replace(row, steady=amount, steady_ms=1000 * float(np.median(seconds))), steadied

"""Which variant of a built-in style is run: the one asked for, or the best that keeps up with the source.

A style is shipped as one network for looks, one in between and one for speed, each a model file of its own.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from stylize.runtime.artifact import Artifact, Quality, builtin_style, open_artifact
from stylize.runtime.decode import Decoder
from stylize.runtime.errors import OptionError
from stylize.runtime.frame import Frame
from stylize.runtime.selection import Selection
from stylize.runtime.source import is_live, is_pipe
from stylize.runtime.stylizer import Stylizer
from stylize.runtime.unattended import made_in_thread

__all__ = ["choose_variant", "frames_per_second"]

# Of two cores that render 640x360 the network gets four fifths, decoder and encoder the rest; see docs/performance.md.
_NETWORK_SHARE: Final = 0.8
_NUM_WARMUP: Final = 3
_PROBE_SECONDS: Final = 0.7
_MIN_PROBE_FRAMES: Final = 6
# Larger frames are measured by as many pixels, enough to fill a GPU: a 4K frame of `reconet` takes 6 s on two cores.
_MOST_PROBE_PIXELS: Final = 1280 * 720


def choose_variant(
    model: str,
    quality: Quality,
    source: str | Path,
    *,
    selection: Selection,
    load: Callable[[Artifact], AbstractContextManager[Stylizer]],
) -> tuple[Artifact, str]:
    """The variant of a built-in style to run, and why, in a sentence; empty where nothing was measured.

    `AUTO` measures variants from the best looking to the fastest, each briefly on frames of the source's
    size, and takes the first that keeps up with the source's rate while decoder and encoder run beside it;
    where none does, the fastest.

    Args:
        model: name of a built-in style.
        quality: what is asked for.
        source: what will be rendered; opened here to learn its size and rate.
        selection: the part, rate and size that will be rendered.
        load: opens a variant the way it will be run.

    Raises:
        OptionError: `model` is no built-in style or lacks that variant, or `AUTO` is asked for standard input.
        InputMediaError: the source cannot be read.
    """
    style = builtin_style(model)
    if style is None:
        raise OptionError(f"--quality {quality} is for built-in styles (--list-styles), {model} is a file: drop it")
    if quality != Quality.AUTO:
        if quality not in style.variants:
            raise OptionError(f"{model} has no variant {quality}, choose one of {', '.join(style.variants)}")
        return open_artifact(style.variants[quality].stem), ""
    if is_pipe(source):
        raise OptionError(
            "--quality auto reads the start of the input twice, which standard input and pipes cannot give: name one"
        )
    open_source = partial(Decoder, source, selection=selection, is_live=is_live(source))
    with made_in_thread(open_source, discard=Decoder.close) as decoder:
        width, height, rate = decoder.info.width, decoder.info.height, float(decoder.info.frame_rate)
    tried = []
    for name, path in style.variants.items():
        artifact = open_artifact(path.stem)
        with load(artifact) as stylizer:
            fps = _NETWORK_SHARE * frames_per_second(stylizer, width=width, height=height)
        tried.append(f"{name} {fps:.1f}")
        if fps >= rate:
            break
    reaches = "" if fps >= rate else ", none keeps up"
    return artifact, (
        f"variant {name} chosen for {width}x{height} at {rate:.4g} frames per second, "
        f"estimated with decoding and encoding: {', '.join(tried)}{reaches}"
    )


def frames_per_second(stylizer: Stylizer, *, width: int, height: int) -> float:
    """How fast frames of that size go through the network, measured for a second or two.

    The time a network takes grows with the pixels, so large frames are measured by smaller ones.
    """
    share = min(1.0, _MOST_PROBE_PIXELS / (width * height))
    probe_height, probe_width = (max(1, round(side * math.sqrt(share))) for side in (height, width))
    share = probe_height * probe_width / (height * width)
    noise = np.random.default_rng(0).integers(0, 256, (probe_height, probe_width, 3), np.uint8)
    frames = [Frame.from_array(noise) for _ in range(stylizer.num_in_flight)]
    _pass_frames(stylizer, frames, num_frames=_NUM_WARMUP, seconds=0)
    started = time.perf_counter()
    num_frames = _pass_frames(stylizer, frames, num_frames=_MIN_PROBE_FRAMES, seconds=_PROBE_SECONDS)
    return share * num_frames / (time.perf_counter() - started)


def _pass_frames(stylizer: Stylizer, frames: list[Frame], *, num_frames: int, seconds: float) -> int:
    """Stylize `num_frames`, and go on until `seconds` are over; returns how many it were."""
    begun: deque[Callable[[], None]] = deque()
    until = time.perf_counter() + seconds
    done = 0
    while done < num_frames or time.perf_counter() < until:
        begun.append(stylizer.begin(frames[done % len(frames)]))
        if len(begun) == len(frames):
            begun.popleft()()
        done += 1
    for complete in begun:
        complete()
    return done

"""Kills `stylize-run --resume` at random moments and goes on with the same command: `python tests/kill.py --count 20`.

The tests run a few of these; run many by hand after changing anything about segments.
"""

import argparse
import contextlib
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from helpers.clips import ClipSpec, write_clip
from helpers.networks import write_affine

COMMAND = [sys.executable, "-c", "from stylize.runtime.cli import main; main()"]
OPTIONS = ["--resume", "--segment-frames", "20", "--preset", "fast", "-q"]
CLIP = ClipSpec(
    width=192,
    height=144,
    pts=[index * 1000 + index * 7919 % 600 for index in range(250)],  # uneven distances
    time_base=Fraction(1, 25_000),
    options=(("preset", "veryfast"), ("bf", "3"), ("g", "50")),
    sound_start_seconds=0.3,
    sound_seconds=9.0,
)


@dataclass(frozen=True)
class Outcome:
    """All that a viewer gets."""

    pictures: str
    """Hash of all frames as decoded."""
    times: tuple[Fraction, ...]
    sound: str


def outcome_of(path: Path) -> Outcome:
    """Decode `path`."""
    pictures, sound, times = hashlib.sha256(), hashlib.sha256(), []
    with av.open(str(path)) as container:
        for frame in container.decode():
            if isinstance(frame, av.VideoFrame):
                pictures.update(frame.to_ndarray())
                times.append(frame.pts * frame.time_base)
            else:
                sound.update(frame.to_ndarray().tobytes())
    return Outcome(pictures.hexdigest(), tuple(times), sound.hexdigest())


def command(folder: Path, target: str) -> list[str]:
    return [*COMMAND, str(folder / "model.onnx"), str(folder / "in.mp4"), str(folder / target), *OPTIONS]


def unbroken(folder: Path) -> tuple[Outcome, float]:
    """Make model and clip in `folder`, render without a stop; what came out and how many seconds it took."""
    write_affine(folder / "model.onnx", scale=-1.0, offset=1.0)
    write_clip(folder / "in.mp4", CLIP)
    started = time.monotonic()
    subprocess.run(command(folder, "whole.mp4"), check=True)
    return outcome_of(folder / "whole.mp4"), time.monotonic() - started


def kill_until_done(folder: Path, *, num_kills: int, usual_seconds: float, random: random.Random) -> Outcome:
    """Render with `num_kills` kills at any moment from start to end; what is done too early is begun again."""
    target, kept = folder / "out.mp4", folder / ".out.mp4.resume"
    num_segments = []
    while len(num_segments) < num_kills:
        process = subprocess.Popen(command(folder, target.name))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0.0, usual_seconds))
        process.kill()
        if process.wait() == 0:
            target.unlink()
            continue
        assert process.returncode == -signal.SIGKILL
        num_segments.append(len(list(kept.glob("[0-9]*.segment"))))
    print(f"finished segments after each kill: {num_segments}")
    subprocess.run(command(folder, target.name), check=True)
    assert not kept.exists()
    return outcome_of(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        expected, seconds = unbroken(Path(name))
        found = kill_until_done(
            Path(name), num_kills=arguments.count, usual_seconds=seconds, random=random.Random(arguments.seed)
        )
        print(f"{len(found.times)} frames: {'identical' if found == expected else 'DIFFERENT'}")
        sys.exit(0 if found == expected else 1)


if __name__ == "__main__":
    main()

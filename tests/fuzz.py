"""Damages small files and runs them: a result or one clear error, no traceback, no hang, nothing left behind.

python tests/fuzz.py --count 2000 --seed 1

Each file is run in this process under an alarm; the first violation is printed with the seed that makes it
and the damaged file is kept in the current folder. `tests/test_runtime_fuzz.py` runs a few of each kind.
"""

import argparse
import logging
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np

from helpers.clips import ClipSpec, numbered_frame, write_clip
from stylize.runtime import EncodeOptions, StylizeError, Stylizer, stylize_video
from stylize.runtime.frame import Frame
from stylize.runtime.identity import write_identity
from stylize.runtime.partial_file import PartialFile
from stylize.runtime.still import write_still
from stylize.train.checkpoint import (
    checkpoint_of_weights,
    load_checkpoint,
    network_from_checkpoint,
    save_checkpoint,
)
from stylize.train.networks import build_network

KINDS = (".mp4", ".mkv", ".png", ".jpg", ".gif", ".onnx", ".pth")
LIMIT_SECONDS = 60  # a file takes a hundredth of a second; a machine may be busy


class HangError(Exception):
    """A file took longer than `LIMIT_SECONDS`."""


class LeftoverError(Exception):
    """A failed run left a file behind, or a successful one no output."""


def write_seeds(folder: Path) -> dict[str, bytes]:
    """One small valid file of each kind."""
    spec = ClipSpec(pts=range(6), sound_start_seconds=0.0, subtitles=())
    seeds = {
        ".mp4": write_clip(folder / "seed.mp4", spec),
        ".mkv": write_clip(folder / "seed.mkv", ClipSpec(pts=range(6), subtitles=((0.0, "one"),))),
        ".onnx": write_identity(folder / "seed.onnx"),
    }
    for suffix in (".png", ".jpg"):
        frame = Frame.from_array(numbered_frame(1, 64, 48))
        frame.set_time(0, duration=1, time_base=1)
        seeds[suffix] = folder / f"seed{suffix}"
        with PartialFile(seeds[suffix]) as output:
            write_still(frame, output)
            output.commit()
    seeds[".pth"] = folder / "seed.pth"
    save_checkpoint(checkpoint_of_weights(build_network("fast", {"width": 32}), style="seed"), seeds[".pth"])
    seeds[".gif"] = folder / "seed.gif"
    stylize_video(seeds[".onnx"], seeds[".mp4"], seeds[".gif"])
    return {suffix: path.read_bytes() for suffix, path in seeds.items()}


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """A damaged copy: flipped bits anywhere or in the header, a piece cut out, doubled, zeroed, or cut off."""
    damaged = bytearray(data)
    first, last = sorted(int(position) for position in rng.integers(0, len(damaged), 2))
    match rng.integers(6):
        case 0 | 1:
            reach = len(damaged) if rng.integers(2) else min(256, len(damaged))
            for position in rng.integers(0, reach, rng.integers(1, 20)):
                damaged[position] ^= 1 << int(rng.integers(8))
        case 2:
            del damaged[first:]
        case 3:
            del damaged[first : first + int(rng.integers(1, 64))]
        case 4:
            damaged[first:last] = bytes(last - first)
        case _:
            damaged[first:first] = damaged[first : first + int(rng.integers(1, 64))]
    return bytes(damaged)


def run_one(data: bytes, suffix: str, folder: Path, identity: Stylizer) -> str:
    """Run one damaged file; `rendered`, `damaged` or `refused`.

    Raises:
        HangError, LeftoverError: what must not happen; anything but a `StylizeError` passes through too.
    """
    source = folder / f"in{suffix}"
    source.write_bytes(data)
    target = folder / "out.mp4"
    before = set(folder.iterdir())
    signal.signal(signal.SIGALRM, _hang)
    signal.alarm(LIMIT_SECONDS)
    try:
        if suffix == ".onnx":
            Stylizer(source).close()
            return "rendered"
        if suffix == ".pth":
            network_from_checkpoint(load_checkpoint(source))
            return "rendered"
        report = stylize_video(identity, source, target, encode=EncodeOptions(preset="ultrafast"))
        if not target.exists():
            raise LeftoverError("no output after success")
        target.unlink()
        return "damaged" if report.problems else "rendered"
    except (StylizeError, ValueError) as error:
        if not isinstance(error, StylizeError) and suffix != ".pth":
            raise  # train raises builtins, runtime its own
        if not str(error) or "\n" in str(error):
            raise LeftoverError(f"an error of {str(error).count(chr(10)) + 1} lines: {error}") from error
        # What could be rendered before a failure is kept on purpose, under its own name.
        (folder / ".out.mp4.partial.mp4").unlink(missing_ok=True)
        left = set(folder.iterdir()) - before
        if left:
            raise LeftoverError(f"left behind: {sorted(left)}") from error
        return "refused"
    finally:
        signal.alarm(0)


def fuzz(
    count: int, *, seed: int, kinds: tuple[str, ...] = KINDS, on_file: Callable[[int], None] = print
) -> Counter[str]:
    """Run `count` damaged files and count how they ended.

    Raises:
        Exception: the first violation, after the file was kept as `fuzz-<seed>-<number><suffix>`.
    """
    ends: Counter[str] = Counter()
    logging.getLogger("stylize").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="stylize-") as name:
        folder = Path(name)
        (folder / "seeds").mkdir()
        seeds = write_seeds(folder / "seeds")
        with Stylizer(folder / "seeds" / "seed.onnx") as identity:
            for number in range(count):
                on_file(number)
                rng = np.random.default_rng((seed, number))
                suffix = kinds[number % len(kinds)]
                data = mutated(seeds[suffix], rng)
                kept = Path(f"fuzz-{seed}-{number}{suffix}")
                kept.write_bytes(data)
                ends[f"{suffix} {run_one(data, suffix, folder, identity)}"] += 1
                kept.unlink()  # not reached by a violation: its file stays
    return ends


def _hang(_signal: int, _frame: FrameType | None) -> None:
    raise HangError(f"took more than {LIMIT_SECONDS} s")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.perf_counter()
    ends = fuzz(arguments.count, seed=arguments.seed, on_file=lambda _number: None)
    for end, number in sorted(ends.items()):
        sys.stdout.write(f"{end:16} {number}\n")
    sys.stdout.write(f"{arguments.count} files in {time.perf_counter() - started:.0f} s\n")


if __name__ == "__main__":
    main()

"""A long render in closed segments, so that the same command goes on after any stop, power loss included.

Beside the target stands a folder with a manifest, which says what is rendered from what, and the finished
segments: encoded pictures of a fixed number of frames each, every segment by a fresh encoder. At the end they
are joined without encoding again, with the sound and all else straight from the source. A run that was stopped
and continued thus writes what an unbroken one writes.
"""

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

from stylize.runtime.container import reported
from stylize.runtime.errors import OptionError
from stylize.runtime.folder_lock import FolderLock
from stylize.runtime.frame import TimedPicture
from stylize.runtime.partial_file import PartialFile, check_place
from stylize.runtime.segment_file import SegmentRecord, read_record
from stylize.runtime.selection import Item

__all__ = ["Part", "ResumeFolder", "ResumeOptions", "Segment", "folder_of", "segments_in"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """A part of a render, from one of its frames to another."""

    after: Fraction | None
    """Seconds: the time of the last frame before it; None from the first on."""
    until: Fraction | None
    """Seconds: the time of its last frame; None to the end."""

    def of(self, items: Iterable[Item]) -> Iterator[Item]:
        """What of `items` is shown no later than its end."""
        for item in items:
            if self.until is not None and isinstance(item, TimedPicture) and item.pts * item.time_base > self.until:
                return
            yield item


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """How a render that can be continued is divided."""

    segment_frames: int = 120
    """Frames in a segment: what a stop costs at most. Each begins with a key frame; even, because H.264 wants
    neighbouring ones to differ in a number that x264 alternates."""
    part: Part | None = None
    """All that is rendered, into segments that somebody else joins; None for everything, joined at the end."""

    def __post_init__(self) -> None:
        if self.segment_frames < 2 or self.segment_frames % 2:
            raise OptionError(f"--segment-frames {self.segment_frames} must be even and at least 2")


@dataclass(frozen=True)
class Segment:
    """A finished one."""

    path: Path
    record: SegmentRecord


def folder_of(target: Path) -> Path:
    """Where the segments of a render to `target` are kept."""
    return target.with_name(f".{target.name}.resume")


def segments_in(folder: Path) -> list[Segment]:
    """Those of a folder in order, up to the last, or to one that is missing or damaged and is rendered again."""
    segments: list[Segment] = []
    while not (segments and segments[-1].record.is_last):
        path = _path_of(folder, len(segments))
        try:
            segments.append(Segment(path, read_record(path)))
        except (FileNotFoundError, ValueError):
            break
    return segments


class ResumeFolder:
    """The finished part of a run, beside its target; a context manager.

    Left with an error it is kept when there is something in it, and that is logged.
    """

    def __init__(self, target: Path, facts: Mapping[str, str]) -> None:
        """Open or create the folder.

        Args:
            target: the file that will be written.
            facts: see `run_facts`.

        Raises:
            OptionError: it belongs to a run of other facts, or to one that is under way.
            OutputMediaError: it cannot be written.
        """
        check_place(target)
        self.target = target
        self.facts = facts
        self.path = folder_of(target)
        with reported(target, f"{self.path} cannot be written: "):
            self.path.mkdir(exist_ok=True)
            try:
                self._lock = FolderLock(self.path)
            except BlockingIOError as error:
                raise OptionError(
                    f"{self.path}: another run is at work there; wait for it, or stop it to go on"
                ) from error
            try:
                self._begin_or_compare(self.path / "manifest.json")
            except BaseException:
                self._lock.close()
                raise
        self.segments = segments_in(self.path)
        """The finished ones in order."""

    @property
    def is_complete(self) -> bool:
        """Whether the last segment is there."""
        return bool(self.segments) and self.segments[-1].record.is_last

    @property
    def num_frames(self) -> int:
        """Pictures in all finished segments, those of parts rendered by other processes included."""
        folders = [self.path, *self.path.glob(".*.resume")]
        return sum(len(segment.record.times) for folder in folders for segment in segments_in(folder))

    @property
    def last_pts(self) -> int | None:
        """Time of the last frame of the finished segments."""
        return self.segments[-1].record.last_pts if self.segments else None

    @property
    def next_path(self) -> Path:
        """Of the segment to be rendered next."""
        return _path_of(self.path, len(self.segments))

    def remove(self) -> None:
        """Delete the folder, once the target is complete."""
        self._lock.close()  # Windows removes no open file
        shutil.rmtree(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.close()
        if error is None:
            return
        if num_frames := self.num_frames:
            logger.warning("%d frames are kept in %s: the same command goes on", num_frames, self.path)
        else:
            shutil.rmtree(self.path, ignore_errors=True)

    def _begin_or_compare(self, manifest: Path) -> None:
        if not manifest.exists():
            with PartialFile(manifest) as output:
                output.path.write_text(json.dumps(self.facts, indent=2), encoding="utf-8")
                output.commit(is_durable=True)
            return
        was, facts = json.loads(manifest.read_text(encoding="utf-8")), self.facts
        names = [name for name in {**was, **facts} if was.get(name) != facts.get(name)]
        if names:
            changes = "; ".join(f"{name} was {was.get(name)}, is now {facts.get(name)}" for name in names)
            raise OptionError(
                f"{self.path} was begun otherwise: {changes}. Give the command as it was, or remove that folder "
                "to start afresh"
            )


def _path_of(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.segment"

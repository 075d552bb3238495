"""A long render in closed segments, so that the same command goes on after any stop, power loss included.

Beside the target stands a folder with a manifest, which says what is rendered from what, and the finished
segments: encoded pictures of a fixed number of frames each, every segment by a fresh encoder. At the end they
are joined without encoding again, with the sound and all else straight from the source. A run that was stopped
and continued thus writes what an unbroken one writes.
"""

import hashlib
import io
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import av
from av.packet import Packet
from av.video.stream import VideoStream

from stylize.runtime.decode import Decoder
from stylize.runtime.device_color import SurfaceLayout
from stylize.runtime.errors import InputMediaError, OptionError, OutputMediaError
from stylize.runtime.folder_lock import FolderLock
from stylize.runtime.frame import TimedPicture
from stylize.runtime.segment_file import SegmentFile, SegmentRecord, read_record, write_durably
from stylize.runtime.selection import Item
from stylize.runtime.source import local_files
from stylize.runtime.video_encoder import EncodeOptions, VideoEncoder

__all__ = [
    "Part",
    "ResumeFolder",
    "ResumeOptions",
    "SegmentWriter",
    "fingerprint",
    "folder_of",
    "run_facts",
]

logger = logging.getLogger(__name__)

_SAMPLED_BYTES: Final = 1 << 16
_NUM_SAMPLES: Final = 64


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


def fingerprint(source: str | Path) -> str:
    """What tells one input from another: size, time of change and a hash of samples.

    64 samples of 64 KiB over the length of a file, first and last bytes among them, find another file of the
    same size without reading a hundred gigabytes at each start; small changes in between move the time.

    Raises:
        InputMediaError: it is gone, or no file.
    """
    digest, num_bytes, changed_ns = hashlib.sha256(), 0, 0
    files = local_files(source)
    if not files:
        raise OptionError(f"--resume: {source} cannot be read a second time; give a file")
    try:
        for path in files:
            status = path.stat()
            num_bytes += status.st_size
            changed_ns = max(changed_ns, status.st_mtime_ns)
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        for path in dict.fromkeys((files[0], files[-1])):  # in this order: a set's changes from run to run
            with path.open("rb") as file:
                room = path.stat().st_size - _SAMPLED_BYTES
                for index in range(_NUM_SAMPLES):
                    file.seek(max(0, room * index // (_NUM_SAMPLES - 1)))
                    digest.update(file.read(_SAMPLED_BYTES))
    except OSError as error:
        raise InputMediaError(source, f"cannot be read: {error.strerror}") from error
    changed = datetime.fromtimestamp(changed_ns / 1e9, UTC).isoformat(" ", "milliseconds")
    return f"{source} ({num_bytes} bytes of {changed}, {digest.hexdigest()[:12]})"


def run_facts(source: str | Path, model: Mapping[str, str], options: Sequence[Any]) -> dict[str, str]:
    """Everything on which the pictures of a run depend, by name.

    Args:
        source: the input.
        model: what a `Stylizer` says of itself.
        options: dataclasses; files named in them are told apart like the input.
    """
    facts = {"input": fingerprint(source), **model}
    for chosen in options:
        for name, value in asdict(chosen).items():
            facts[name] = fingerprint(value) if isinstance(value, Path) else str(value)
    return facts | {"version": f"stylize {version('stylize')}, PyAV {av.__version__}"}


def folder_of(target: Path) -> Path:
    """Where the segments of a render to `target` are kept."""
    return target.with_name(f".{target.name}.resume")


class ResumeFolder:
    """The finished part of a run, beside its target; a context manager.

    Left with an error it is kept when there is something in it, and that is logged.
    """

    def __init__(self, target: Path, facts: Mapping[str, str], options: ResumeOptions) -> None:
        """Open or create the folder.

        Args:
            target: the file that will be written.
            facts: see `run_facts`.
            options: how the run is divided.

        Raises:
            OptionError: it belongs to a run of other facts, or to one that is under way.
            OutputMediaError: it cannot be written.
        """
        self.target = target
        self.facts = facts
        self.options = options
        self.path = folder_of(target)
        self.records: list[SegmentRecord] = []
        """The finished segments in order."""
        manifest = self.path / "manifest.json"
        if target.is_dir() or not target.parent.is_dir():
            what = "is a folder, expected a file name" if target.is_dir() else f"no such folder: {target.parent}"
            raise OutputMediaError(target, what)
        try:
            self.path.mkdir(exist_ok=True)
            self._lock = FolderLock(self.path)
            try:
                if manifest.exists():
                    self._compare(json.loads(manifest.read_text(encoding="utf-8")), facts)
                    self._read_records()
                else:
                    write_durably(manifest, json.dumps(facts, indent=2).encode())
            except BaseException:
                self._lock.close()
                raise
        except BlockingIOError as error:
            raise OptionError(f"{self.path}: another run is at work there; wait for it, or stop it to go on") from error
        except OSError as error:
            raise OutputMediaError(target, f"{self.path} cannot be written: {error.strerror}") from error

    @property
    def is_complete(self) -> bool:
        """Whether the last segment is there."""
        return bool(self.records) and self.records[-1].is_last

    @property
    def num_frames(self) -> int:
        """Pictures in the finished segments."""
        return sum(len(record.times) for record in self.records)

    @property
    def last_pts(self) -> int | None:
        """Time of the last frame of the finished segments."""
        return self.records[-1].last_pts if self.records else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say about the finished segments, each sentence once."""
        return tuple(dict.fromkeys(note for record in self.records for note in record.notes))

    def path_of(self, index: int) -> Path:
        """The file of a segment."""
        return self.path / f"{index:06d}.segment"

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

    def _compare(self, was: Mapping[str, str], facts: Mapping[str, str]) -> None:
        names = [name for name in {**was, **facts} if was.get(name) != facts.get(name)]
        if names:
            changes = "; ".join(f"{name} was {was.get(name)}, is now {facts.get(name)}" for name in names)
            raise OptionError(
                f"{self.path} was begun otherwise: {changes}. Give the command as it was, or remove that folder "
                "to start afresh"
            )

    def _read_records(self) -> None:
        while not self.is_complete and (path := self.path_of(len(self.records))).exists():
            try:
                self.records.append(read_record(path))
            except ValueError:
                return  # this one is rendered again


class SegmentWriter:
    """Encodes the frames that a `ResumeFolder` lacks, segment by segment; for one thread at a time."""

    def __init__(self, folder: ResumeFolder, *, decoder: Decoder, encode: EncodeOptions) -> None:
        """Open the encoder of the first segment to come.

        Raises:
            OptionError: see `VideoEncoder`.
            OutputMediaError: the container or the encoder refuse, or the disk.
        """
        self._folder = folder
        self._decoder = decoder
        self._encode = encode
        part = folder.options.part
        self._done_pts = folder.last_pts
        if part is not None and part.after is not None and self._done_pts is None:
            self._done_pts = round(part.after / decoder.info.time_base)
        self._last_pts = folder.last_pts
        self._open()

    def write(self, item: Item) -> None:
        """Encode a frame; those finished earlier, yielded again for the network's sake, and packets are left out.

        Raises:
            OutputMediaError: the encoder failed or the disk is full.
        """
        if not isinstance(item, TimedPicture) or (self._done_pts is not None and item.pts <= self._done_pts):
            return
        try:
            if self._num_frames == self._folder.options.segment_frames:
                self._close(is_last=False)
                self._open()
            for packet in self._encoder.encode(item):
                self._add(packet)
        except (av.FFmpegError, OSError) as error:
            raise OutputMediaError(self._folder.target, error.strerror or str(error)) from error
        self._last_pts = item.pts
        self._num_frames += 1

    @property
    def description(self) -> str:
        """Encoder and pixel format really in use."""
        return self._encoder.description

    @property
    def surface_layout(self) -> SurfaceLayout | None:
        """How surfaces must be finished to be written as they are; None where only frames can be."""
        return self._encoder.surface_layout

    @property
    def takes_device_memory(self) -> bool:
        """They do not: what is joined has the header of an encoder that is open before its first picture."""
        return False

    def finish(self) -> None:
        """Close the last segment, after the source has ended.

        Raises:
            OutputMediaError: as `write`.
        """
        try:
            self._close(is_last=True)
        except (av.FFmpegError, OSError) as error:
            raise OutputMediaError(self._folder.target, error.strerror or str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, traceback)

    def _open(self) -> None:
        # The encoder is set up for the container of the target, which will hold its packets.
        container = av.open(_Nowhere(self._folder.target.name), "w", format=self._encode.container)
        self._encoder = VideoEncoder(
            container,
            info=self._decoder.info,
            options=self._encode,
            target=self._folder.target,
            surface_gpu=self._decoder.surface_gpu,
            stays_on_gpu=False,
        )
        container.start_encoding()
        records = self._folder.records
        if records and records[-1].header != self._encoder.header:
            raise OptionError(
                f"{self._folder.path}: begun by {records[-1].encoder} under another header than {self.description} "
                "writes here; go on where it was begun, or remove that folder to start afresh"
            )
        self._times: list[int] = []
        self._num_frames = 0
        self._file = SegmentFile(self._folder.path_of(len(self._folder.records)))

    def _add(self, packet: "Packet[VideoStream]") -> None:
        self._file.add(packet)
        assert packet.pts is not None and packet.time_base == self._decoder.info.time_base, "as the encoder was told"
        self._times.append(packet.pts)

    def _close(self, *, is_last: bool) -> None:
        for packet in self._encoder.flush():
            self._add(packet)
        decoder = self._decoder
        record = SegmentRecord(
            times=tuple(sorted(self._times)),
            num_reordered=_num_reordered(self._times),
            last_pts=self._last_pts,
            is_clean=decoder.is_clean,
            is_last=is_last,
            encoder=self._encoder.codec,
            pix_fmt=self._encoder.pix_fmt,
            header=self._encoder.header,
            notes=(*(decoder.notes if is_last else ()), *self._encoder.notes),
            problems=tuple(decoder.problems) if is_last else (),
        )
        self._file.commit(record)
        self._folder.records.append(record)


def _num_reordered(times: Sequence[int]) -> int:
    """The fewest packets by which sorted times must lag so that none is later than the packet's own."""
    ranks = {time: rank for rank, time in enumerate(sorted(times))}
    return max((index - ranks[time] for index, time in enumerate(times)), default=0)


class _Nowhere(io.RawIOBase):
    """A file that forgets what is written, for a container that only tells an encoder what it needs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._position = self._end = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, content: Any) -> int:  # noqa: ANN401 - any buffer
        """Count the bytes."""
        num_bytes = memoryview(content).nbytes
        self._position += num_bytes
        self._end = max(self._end, self._position)
        return num_bytes

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end}[whence]
        return self._position

    def tell(self) -> int:
        """Where it is."""
        return self._position

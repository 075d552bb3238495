"""Decoded pictures into what the network takes: frames of one size and of ordinary dynamic range, or surfaces."""

import av

from stylize.runtime.color import Color, ColorConverter, color_from_picture
from stylize.runtime.frame import TimedPicture
from stylize.runtime.surface import Surface
from stylize.runtime.surface_source import SurfaceSource, downloaded
from stylize.runtime.tone_map import SDR_COLOR, ToneMapper

__all__ = ["FrameMaker"]


class FrameMaker:
    """Makes frames of the pictures of one video; passive."""

    def __init__(self, surfaces: SurfaceSource | None, *, keeps_hdr: bool, notes: list[str]) -> None:
        """Prepare.

        Args:
            surfaces: takes pictures as surfaces; all others become frames.
            keeps_hdr: whether the dynamic range will be restored.
            notes: where to say what changes in mid-video.
        """
        self.color: Color = SDR_COLOR
        """Of the frames; known after `begin`."""
        self._surfaces, self._keeps_hdr = surfaces, keeps_hdr
        self._notes = notes
        self._converter = ColorConverter()
        self._tone_mapper: ToneMapper | None = None
        self._size = self._source_size = (0, 0)
        self._has_changed_size = False

    def begin(self, picture: av.VideoFrame, *, size: tuple[int, int]) -> list[str]:
        """Decide by the first picture; frames will have `size`. Returns what is to be noted."""
        color = color_from_picture(picture)
        self._size, self._source_size = size, (picture.width, picture.height)
        notes = [color.guess] if color.guess is not None else []
        if color.hdr is None:
            self.color = color
            return notes
        self._tone_mapper = ToneMapper(color.hdr, is_to_be_restored=self._keeps_hdr)
        if self._keeps_hdr:
            self.color = color
            return [*notes, f"{color.hdr} is kept: the network sees it tone-mapped, what was compressed is restored"]
        return [*notes, f"{color.hdr} high dynamic range is tone-mapped to ordinary BT.709 video"]

    @property
    def is_tone_mapping(self) -> bool:
        """Whether frames show other colours than the pictures."""
        return self._tone_mapper is not None

    def frame_of(self, picture: av.VideoFrame) -> TimedPicture:
        """The frame or surface of a picture; its time is unset."""
        color, (width, height) = color_from_picture(picture), self._size
        if (picture.width, picture.height) != self._source_size and not self._has_changed_size:
            self._has_changed_size = True
            self._notes.append(
                f"the video changes its size to {picture.width}x{picture.height}: scaled to {width}x{height}"
            )
        if self._surfaces is not None and self._surfaces.takes(picture, size=self._size):
            return Surface(picture, color)
        frame = self._converter.frame_from_picture(downloaded(picture), color=color, width=width, height=height)
        if self._surfaces is not None and self._surfaces.pix_fmt:
            return Surface(
                self._converter.picture_from_frame(frame, color=self.color, pix_fmt=self._surfaces.pix_fmt), self.color
            )
        return frame if self._tone_mapper is None else self._tone_mapper.mapped(frame)

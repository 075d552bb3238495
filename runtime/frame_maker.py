"""Decoded pictures into what the network takes: frames of one size and of ordinary dynamic range, or surfaces."""

from fractions import Fraction

import av

from stylize.runtime.color import Color, ColorConverter, color_from_picture
from stylize.runtime.frame import TimedPicture
from stylize.runtime.picture_filter import PictureFilter
from stylize.runtime.selection import Hdr, Selection
from stylize.runtime.surface import Surface
from stylize.runtime.surface_source import SurfaceSource, downloaded
from stylize.runtime.tone_map import SDR_COLOR, ToneMapper

__all__ = ["FrameMaker"]


class FrameMaker:
    """Makes frames of the pictures of one video; passive."""

    def __init__(self, selection: Selection, surfaces: SurfaceSource | None, *, notes: list[str]) -> None:
        """Prepare.

        Args:
            selection: the size asked for, and what becomes of high dynamic range.
            surfaces: takes pictures as surfaces; all others become frames.
            notes: where to say what is guessed or changed about the pictures, one sentence each.
        """
        self.color: Color = SDR_COLOR
        """Of the frames; known after `begin`."""
        self.size = (0, 0)
        """Width and height of the frames; known after `begin`."""
        self._selection, self._surfaces = selection, surfaces
        self._notes = notes
        self._converter = ColorConverter()
        self._tone_mapper: ToneMapper | None = None
        self._source_size = (0, 0)
        self._has_changed_size = False

    def begin(
        self, picture: av.VideoFrame, *, frame_rate: Fraction, picture_filter: PictureFilter, is_alone: bool
    ) -> None:
        """Decide by the first picture.

        Args:
            picture: upright and progressive.
            frame_rate: of the pictures, per second.
            picture_filter: what made it so.
            is_alone: whether it is a single picture and no video.
        """
        self._source_size = (picture.width, picture.height)
        self.size = self._selection.size_of(picture.width, picture.height)
        self._begin_color(color_from_picture(picture))
        self._notes += self._selection.notes_on(picture.width, picture.height, rate=frame_rate)
        if self._surfaces is not None:
            reasons = {
                "a single picture": is_alone,
                "tone-mapped": self._tone_mapper is not None,
                "turned upright": picture_filter.is_turning,
                "deinterlaced": picture_filter.is_deinterlacing,
                "scaled": self.size != self._source_size,
            }
            self._notes += self._surfaces.begin(picture, [reason for reason, is_so in reasons.items() if is_so])

    def _begin_color(self, color: Color) -> None:
        if color.guess is not None:
            self._notes.append(color.guess)
        if color.hdr is None:
            self.color = color
            return
        is_kept = self._selection.hdr == Hdr.KEEP
        self._tone_mapper = ToneMapper(color.hdr, is_to_be_restored=is_kept)
        if is_kept:
            self.color = color
            self._notes.append(f"{color.hdr} is kept: the network sees it tone-mapped, what was compressed is restored")
        else:
            self._notes.append(f"{color.hdr} high dynamic range is tone-mapped to ordinary BT.709 video")

    def frame_of(self, picture: av.VideoFrame) -> TimedPicture:
        """The frame or surface of a picture; its time is unset."""
        color, (width, height) = color_from_picture(picture), self.size
        if (picture.width, picture.height) != self._source_size and not self._has_changed_size:
            self._has_changed_size = True
            self._notes.append(
                f"the video changes its size to {picture.width}x{picture.height}: scaled to {width}x{height}"
            )
        if self._surfaces is not None and self._surfaces.takes(picture, size=self.size):
            return Surface(picture, color)
        frame = self._converter.frame_from_picture(downloaded(picture), color=color, width=width, height=height)
        if self._surfaces is not None and self._surfaces.pix_fmt:
            return Surface(
                self._converter.picture_from_frame(frame, color=self.color, pix_fmt=self._surfaces.pix_fmt), self.color
            )
        return frame if self._tone_mapper is None else self._tone_mapper.mapped(frame)

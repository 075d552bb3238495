"""Turns decoded pictures upright and progressive, with FFmpeg's own filters."""

from typing import Final, cast

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideDataContainer, Type

__all__ = ["PictureFilter", "build_graph", "pull_all", "upright_filters"]

# bwdif, one picture out per picture in, only where the picture says it is interlaced.
_DEINTERLACE: Final = ("bwdif", "mode=send_frame:deint=interlaced")

# Numbers of libavutil/frame.h (FFmpeg 8.1) beyond PyAV 18.1's enum, which raises on them: LCEVC, view id,
# reference displays and Exif (31), with room for the next. Every photo of a phone has Exif.
_UNNAMED_SIDE_DATA: Final = range(28, 36)
# What is upright must not say that it has to be turned: PNG and TIFF would store that again.
_FORGET_ORIENTATION: Final = (("sidedata", "mode=delete:type=DISPLAYMATRIX"), ("sidedata", "mode=delete:type=31"))


class PictureFilter:
    """Applies the display matrix of each picture and deinterlaces from the first interlaced one on.

    Passive; pictures that need nothing pass through untouched. The graph is rebuilt when size, format
    or orientation change in mid-stream.
    """

    def __init__(self) -> None:
        self.is_deinterlacing = False
        self.is_turning = False
        """Whether the last picture was mirrored or rotated."""
        self.is_transposing = False
        """Whether the last picture had width and height exchanged."""
        self._graph: Graph | None = None
        self._key: tuple[object, ...] = ()
        self._orientation: tuple[object, ...] = ()
        self._upright_filters: tuple[tuple[str, str], ...] = ()

    @property
    def notes(self) -> list[str]:
        """What is done to the last picture, one sentence each."""
        notes = ["the display rotation was applied to the pixels"] if self.is_turning else []
        return (
            [*notes, "the source is interlaced: deinterlaced, one frame per picture"]
            if self.is_deinterlacing
            else notes
        )

    def turns_of(self, picture: av.VideoFrame) -> tuple[tuple[str, str], ...]:
        """`upright_filters` of a picture, looked up anew only where its angle, size or format changes.

        PyAV ties a picture whose side data was looked at into a cycle, freed by the garbage collector alone, and late.
        """
        orientation = (picture.rotation, picture.width, picture.height, picture.format.name)
        if orientation != self._orientation:
            self._upright_filters, self._orientation = upright_filters(picture), orientation
        return self._upright_filters

    def push(self, picture: av.VideoFrame) -> list[av.VideoFrame]:
        """Filter one picture; the result may come one picture later, its times in its own time base."""
        self.is_deinterlacing |= picture.interlaced_frame
        filters = self.turns_of(picture)
        self.is_turning = bool(filters)
        self.is_transposing = any(name == "transpose" for name, _ in filters)
        if filters:
            filters = (*filters, *_FORGET_ORIENTATION)
        if self.is_deinterlacing:
            filters = (_DEINTERLACE, *filters)
        key = (picture.format.name, picture.width, picture.height, picture.time_base, filters)
        finished: list[av.VideoFrame] = []
        if key != self._key:
            finished = self.flush()
            self._graph, self._key = (build_graph(picture, filters) if filters else None), key
        if self._graph is None:
            return [*finished, picture]
        self._graph.vpush(picture)
        return [*finished, *pull_all(self._graph)]

    def flush(self) -> list[av.VideoFrame]:
        """The pictures still inside; the filter starts anew afterwards."""
        graph, self._graph, self._key = self._graph, None, ()
        if graph is None:
            return []
        graph.vpush(None)
        return pull_all(graph)


def upright_filters(picture: av.VideoFrame) -> tuple[tuple[str, str], ...]:
    """The (filter, arguments) that carry out the display matrix of a picture; none for an upright one.

    The matrix maps a pixel (x, y) to (a x + c y, b x + d y). Angles other than quarter turns are taken
    as the nearest one.
    """
    try:
        # PyAV's stub declares a TypedDict; the object is a sequence of side data with a type each.
        side_data = cast(SideDataContainer, picture.side_data)
    except ValueError:  # a kind of side data for which PyAV has no name
        side_data = cast(SideDataContainer, _with_named_side_data(picture).side_data)
    found = next((data for data in side_data if data.type == Type.DISPLAYMATRIX), None)
    if found is None:
        return ()
    matrix = np.frombuffer(memoryview(found), np.int32)
    a, b, c, d = (int(matrix[index]) for index in (0, 1, 3, 4))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (*((("hflip", ""),) if a < 0 else ()), *((("vflip", ""),) if d < 0 else ()))
    direction = {(True, False): "clock", (False, True): "cclock", (True, True): "cclock_flip"}
    return (("transpose", f"dir={direction.get((b > 0, c > 0), 'clock_flip')}"),)


def build_graph(picture: av.VideoFrame, filters: tuple[tuple[str, str], ...]) -> Graph:
    """A chain of FFmpeg's filters, given as (name, arguments), for pictures like this one; passive."""
    graph = Graph()
    source = graph.add(
        "buffer",
        f"video_size={picture.width}x{picture.height}:pix_fmt={picture.format.name}:time_base={picture.time_base}"
        f":colorspace={picture.colorspace}:range={picture.color_range}",
    )
    nodes = [source, *(graph.add(name, arguments) for name, arguments in filters), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    return graph


def pull_all(graph: Graph) -> list[av.VideoFrame]:
    """Every picture that `graph` has finished."""
    pictures: list[av.VideoFrame] = []
    while True:
        try:
            pictures.append(graph.vpull())
        except (av.BlockingIOError, av.EOFError):
            return pictures


def _with_named_side_data(picture: av.VideoFrame) -> av.VideoFrame:
    """The same picture without the kinds of side data that PyAV cannot name."""
    graph = build_graph(picture, tuple(("sidedata", f"mode=delete:type={number}") for number in _UNNAMED_SIDE_DATA))
    graph.vpush(picture)
    return graph.vpull()

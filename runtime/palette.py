"""The 256 colours of each picture of a GIF, chosen by FFmpeg's own filters."""

from typing import Final

import av
from av.filter import Graph

from stylize.runtime.picture_filter import pull_all

__all__ = ["PaletteFilter"]

# A palette for each picture: one for all would need the whole video in memory, and strokes change it all.
_PALETTE: Final = "stats_mode=single:reserve_transparent={}"


class PaletteFilter:
    """Turns RGB pictures of one size into paletted ones with dithering; passive."""

    def __init__(self, *, has_alpha: bool) -> None:
        """Prepare for pictures with or without transparency, which takes one of the colours."""
        self.has_alpha = has_alpha
        self._graph: Graph | None = None

    def push(self, picture: av.VideoFrame) -> list[av.VideoFrame]:
        """Filter one picture; the result may come one picture later."""
        if self._graph is None:
            self._graph = _build(picture, has_alpha=self.has_alpha)
        self._graph.vpush(picture)
        return pull_all(self._graph)

    def flush(self) -> list[av.VideoFrame]:
        """The pictures still inside."""
        if self._graph is None:
            return []
        self._graph.vpush(None)
        return pull_all(self._graph)


def _build(picture: av.VideoFrame, *, has_alpha: bool) -> Graph:
    graph = Graph()
    source = graph.add(
        "buffer",
        f"video_size={picture.width}x{picture.height}:pix_fmt={picture.format.name}:time_base={picture.time_base}",
    )
    split, choose = graph.add("split"), graph.add("palettegen", _PALETTE.format(int(has_alpha)))
    use, sink = graph.add("paletteuse", "new=1"), graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(choose, 1, 0)
    choose.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph

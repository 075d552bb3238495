"""Which pixel format a video is encoded in, and what of its source that has no place for."""

from typing import Final

import av
from av.codec.codec import find_best_pix_fmt_of_list

__all__ = ["has_alpha", "losses", "num_bits", "suitable_pix_fmt"]

_ALPHA_PIX_FMT: Final = "yuva420p"
_CHROMA: Final = {(8, 8): "4:4:4", (4, 8): "4:2:2", (4, 4): "4:2:0"}  # by its size for 8 x 8 pixels


def suitable_pix_fmt(codec: av.Codec, source: str, *, usual: str) -> str:
    """What `codec` should encode pictures in that were of the pixel format `source`.

    Codecs of whole pictures are for editing and archives: they get what is nearest to the source. Others are for
    watching and get `usual`, where they have it.
    """
    offered = [video_format.name for video_format in codec.video_formats or ()]
    if has_alpha(source) and codec.name.startswith("libvpx"):
        usual = _ALPHA_PIX_FMT
    if not offered or (usual in offered and codec.lossy and not codec.intra_only):
        return usual
    nearest, _ = find_best_pix_fmt_of_list(offered, source, has_alpha=has_alpha(source))
    return offered[0] if nearest is None else nearest.name


def losses(source: str, chosen: str) -> list[str]:
    """What of depth and chroma is lost on the way from one pixel format to the other, in at most one sentence."""
    lost = {}
    if num_bits(source) > num_bits(chosen):
        lost[f"{num_bits(source)}-bit"] = f"{num_bits(chosen)} bits"
    finest_first = list(_CHROMA.values())
    before, after = _chroma(source), _chroma(chosen)
    if before and after and finest_first.index(before) < finest_first.index(after):
        lost[before] = f"{after} chroma"
    if not lost:
        return []
    return [f"{' '.join(lost)} source ({source}) encoded with {' and '.join(lost.values())} ({chosen})"]


def has_alpha(pix_fmt: str) -> bool:
    """Whether pictures of that format may be transparent."""
    return any(component.is_alpha for component in av.VideoFormat(pix_fmt).components)


def num_bits(pix_fmt: str) -> int:
    """Of its deepest component."""
    bits: int = max(component.bits for component in av.VideoFormat(pix_fmt).components)
    return bits


def _chroma(pix_fmt: str) -> str:
    """How finely colours are sampled; empty for grey, RGB and what is rare."""
    video_format = av.VideoFormat(pix_fmt)
    if video_format.is_rgb or len(video_format.components) < 3:
        return ""
    return _CHROMA.get((video_format.chroma_width(8), video_format.chroma_height(8)), "")

"""What an HDR stream says about the display it was made on, which goes into the new one unchanged."""

import struct
from fractions import Fraction
from typing import Final, cast

import av
from av.sidedata.sidedata import SideDataContainer, Type

__all__ = ["hdr_metadata"]

# libavutil/mastering_display_metadata.h: red, green, blue and white point, darkest and brightest light as pairs of
# numerator and denominator, then two flags; and two numbers of nits.
_MASTERING: Final = struct.Struct("=22i")
_LIGHT: Final = struct.Struct("=2I")
_COORDINATE_UNIT, _NITS_UNIT = 50_000, 10_000  # SMPTE ST 2086, as x265 counts them


def hdr_metadata(picture: av.VideoFrame) -> str:
    """SMPTE ST 2086 mastering display and CTA-861.3 light levels in the words of x265's parameters; empty for none."""
    found = {}
    try:
        found = {data.type: bytes(data) for data in cast(SideDataContainer, picture.side_data)}
    except ValueError:
        return ""  # a kind of side data beside it for which PyAV has no name
    words = []
    mastering, light = found.get(Type.MASTERING_DISPLAY_METADATA), found.get(Type.CONTENT_LIGHT_LEVEL)
    if mastering is not None and len(mastering) >= _MASTERING.size:
        *ratios, has_primaries, has_luminance = _MASTERING.unpack_from(mastering)
        values = [Fraction(*ratios[index : index + 2]) for index in range(0, 20, 2) if ratios[index + 1]]
        if has_primaries and has_luminance and len(values) == 10:
            red, green, blue, white = (
                f"({round(values[index] * _COORDINATE_UNIT)},{round(values[index + 1] * _COORDINATE_UNIT)})"
                for index in (0, 2, 4, 6)
            )
            darkest, brightest = (round(value * _NITS_UNIT) for value in values[8:])
            words.append(f"master-display=G{green}B{blue}R{red}WP{white}L({brightest},{darkest})")
    if light is not None and len(light) >= _LIGHT.size:
        words.append("max-cll={},{}".format(*_LIGHT.unpack_from(light)))
    return ":".join(words)

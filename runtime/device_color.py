"""The argument of the kernels in `color.cu`: where a surface lies, what its codes mean, how the style shows."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.color import Color

__all__ = [
    "PASS_DTYPE",
    "Blend",
    "ChromaSite",
    "RgbTensors",
    "SurfaceLayout",
    "SurfacePlanes",
    "chroma_site_of",
    "kernel_grid",
    "kernel_name",
    "kernel_pass",
    "surface_layout",
]

ChromaSite = Literal["left", "center", "top_left"]
"""Where a chroma sample lies among the four pixels it serves (H.273, figure 1: types 0, 1 and 2)."""

SURFACE_DTYPE: Final = np.dtype(
    [
        *((name, np.uint64) for name in ("y", "cb", "cr")),
        *(
            (name, np.int32)
            for name in (
                "luma_pitch_bytes",
                "chroma_pitch_bytes",
                "chroma_step",
                "shift",
                "width",
                "height",
                "is_aligned",
                "is_centered_x",
                "is_centered_y",
            )
        ),
    ],
    align=True,
)
PASS_DTYPE: Final = np.dtype(
    [
        ("surface", SURFACE_DTYPE),
        *((name, np.uint64) for name in ("rgb", "styled", "mask", "not_a_number")),
        *(
            (name, np.int32)
            for name in ("width", "height", "padded_width", "padded_height", "is_rgb_aligned", "keeps_colors")
        ),
        *((name, np.float32) for name in ("strength", "black", "white")),
        *((name, np.float32) for name in ("luma_scale", "luma_offset", "red_cr", "green_cb", "green_cr", "blue_cb")),
        ("chroma_middle", np.float32),
        *((name, np.float32) for name in ("y_red", "y_green", "y_blue", "y_offset")),
        *((name, np.float32) for name in ("cb_red", "cb_green", "cb_blue", "cr_red", "cr_green", "cr_blue")),
        ("max_code", np.float32),
        *((name, np.float32) for name in ("share_red", "share_green", "share_blue")),
    ],
    align=True,
)
"""`Pass` of `color.cu`, field by field."""

_BLOCK: Final = (32, 4, 1)  # a warp along the row for whole cache lines, 128 threads as `__launch_bounds__` says
_ACCESS_BYTES: Final = 16

# FFmpeg's name -> (bits of a sample, bytes of a sample, unused low bits, samples from one Cb to the next)
_LAYOUTS: Final = {
    "nv12": (8, 1, 0, 2),
    "p010le": (10, 2, 6, 2),
    "yuv420p": (8, 1, 0, 1),
    "yuvj420p": (8, 1, 0, 1),
    "yuv420p10le": (10, 2, 0, 1),
}


@dataclass(frozen=True)
class SurfaceLayout:
    """How a 4:2:0 picture of one size is stored in one piece of memory, planes one after the other."""

    pix_fmt: str
    width: int
    """Pixels."""
    height: int
    """Pixels."""

    PIX_FMTS = tuple(_LAYOUTS)

    def __post_init__(self) -> None:
        if self.pix_fmt not in _LAYOUTS:
            raise ValueError(f"pix_fmt={self.pix_fmt!r} must be one of {', '.join(_LAYOUTS)}")

    @property
    def bits(self) -> int:
        """Bits that carry a code."""
        return _LAYOUTS[self.pix_fmt][0]

    @property
    def sample_bytes(self) -> int:
        """Memory of a sample."""
        return _LAYOUTS[self.pix_fmt][1]

    @property
    def chroma_step(self) -> int:
        """Samples from one Cb to the next: 2 where Cb and Cr alternate."""
        return _LAYOUTS[self.pix_fmt][3]

    @cached_property
    def plane_shapes(self) -> tuple[tuple[int, int], ...]:
        """Rows and samples per row of each plane."""
        chroma = (self.height + 1) // 2, (self.width + 1) // 2 * self.chroma_step
        return ((self.height, self.width), *((chroma,) * (3 - self.chroma_step)))

    @cached_property
    def pitches_bytes(self) -> tuple[int, ...]:
        """Bytes from row to row in each plane, such that every row allows the widest accesses."""
        return tuple(_round_up(columns * self.sample_bytes) for _, columns in self.plane_shapes)

    @cached_property
    def offsets_bytes(self) -> tuple[int, ...]:
        """Where each plane begins."""
        sizes = [rows * pitch for (rows, _), pitch in zip(self.plane_shapes, self.pitches_bytes, strict=True)]
        return tuple(sum(sizes[:index]) for index in range(len(sizes)))

    @cached_property
    def size_bytes(self) -> int:
        """Memory of the whole picture."""
        return self.offsets_bytes[-1] + self.plane_shapes[-1][0] * self.pitches_bytes[-1]

    def planes_at(self, address: int) -> "SurfacePlanes":
        """The planes of a picture stored at `address`."""
        addresses = tuple(address + offset for offset in self.offsets_bytes)
        return SurfacePlanes(self.pix_fmt, self.width, self.height, addresses, self.pitches_bytes)


@lru_cache(maxsize=16)
def surface_layout(pix_fmt: str, width: int, height: int) -> SurfaceLayout:
    """`SurfaceLayout`, made once: it is asked for with every picture."""
    return SurfaceLayout(pix_fmt, width, height)


@dataclass(frozen=True)
class SurfacePlanes:
    """Where the planes of a 4:2:0 picture lie; addresses of the device, not owned."""

    pix_fmt: str
    width: int
    height: int
    addresses: tuple[int, ...]
    pitches_bytes: tuple[int, ...]

    @cached_property
    def layout(self) -> SurfaceLayout:
        """The format and size."""
        return surface_layout(self.pix_fmt, self.width, self.height)


@dataclass(frozen=True)
class RgbTensors:
    """Input and output of the network, each (1, 3, H, W), contiguous; addresses of the device, not owned."""

    source: int
    styled: int
    padded_width: int
    padded_height: int
    value_bytes: int
    """2 for float16, 4 for float32."""
    value_range: tuple[float, float] = (0.0, 1.0)
    """Values of black and white."""


@dataclass(frozen=True)
class Blend:
    """How the style shows."""

    strength: float = 1.0
    keeps_colors: bool = False
    mask: int = 0
    """Address of (H, W) float32 weights in [0, 1], 0 for none."""


def chroma_site_of(color: Color) -> ChromaSite:
    """Where chroma lies by the rule for sources of that kind, since PyAV hands on no tag for it.

    BT.2020 puts it on the top left pixel (BT.2020-2, table 3), JPEG and MPEG-1, whose range is full and whose
    matrix is BT.601, between all four; MPEG-2 and what came after put it left (H.264, annex E: the default).
    """
    if color.matrix == 9:
        return "top_left"
    return "center" if color.is_full_range and color.matrix in (5, 6) else "left"


@lru_cache(maxsize=256)  # the same few pictures go round, of a decoder's pool and of the encoder's
def kernel_pass(
    surface: SurfacePlanes,
    tensors: RgbTensors,
    *,
    size: tuple[int, int],
    color: Color,
    blend: Blend | None = None,
    not_a_number: int = 0,
) -> NDArray[np.void]:
    """The argument of `rgb_from_yuv_...` (reads `surface`) and `yuv_from_rgb_...` (writes it).

    Args:
        surface: the 4:2:0 picture; the one written may be a pixel larger than `size` and repeats the border there.
        tensors: what the network reads and writes, padded.
        size: width and height in pixels of the picture inside `tensors`.
        color: what the codes mean.
        blend: how the style shows, for writing.
        not_a_number: address of an int32 that becomes 1 when the network wrote NaN, 0 not to know.

    Returns:
        One record of `PASS_DTYPE`, an array without axes, not to be changed.
    """
    blend = blend or Blend()
    result = np.zeros((), PASS_DTYPE)
    result["surface"] = _surface_record(surface, color)
    result["rgb"], result["styled"], result["mask"] = tensors.source, tensors.styled, blend.mask
    result["not_a_number"] = not_a_number
    result["width"], result["height"] = size
    result["padded_width"], result["padded_height"] = tensors.padded_width, tensors.padded_height
    row_bytes = tensors.padded_width * tensors.value_bytes
    result["is_rgb_aligned"] = _is_aligned(tensors.source, tensors.styled, row_bytes)
    result["keeps_colors"], result["strength"] = blend.keeps_colors, blend.strength
    result["black"], result["white"] = tensors.value_range
    for name, value in _coefficients(color, surface.layout.bits).items():
        result[name] = value
    result.flags.writeable = False
    return result


def kernel_name(direction: Literal["rgb_from_yuv", "yuv_from_rgb"], layout: SurfaceLayout, value_bytes: int) -> str:
    """The kernel of `color.cu` for surfaces of that layout and values of 2 or 4 bytes."""
    return f"{direction}_u{8 * layout.sample_bytes}_f{8 * value_bytes}"


def kernel_grid(num_columns: int, num_rows: int) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """Grid and block for that many columns and rows of threads."""
    return (-(-num_columns // _BLOCK[0]), -(-num_rows // _BLOCK[1])), _BLOCK


def _surface_record(surface: SurfacePlanes, color: Color) -> tuple[int | bool, ...]:
    _, sample_bytes, shift, step = _LAYOUTS[surface.pix_fmt]
    site = chroma_site_of(color)
    if step == 2:
        luma, cb = surface.addresses
        cr = cb + sample_bytes
    else:
        luma, cb, cr = surface.addresses
    aligned = (luma, surface.pitches_bytes[0], *((cb, surface.pitches_bytes[1]) if step == 2 else ()))
    return (
        luma,
        cb,
        cr,
        *surface.pitches_bytes[:2],
        step,
        shift,
        surface.width,
        surface.height,
        _is_aligned(*aligned),
        site == "center",
        site != "top_left",
    )


def _coefficients(color: Color, bits: int) -> dict[str, float]:
    """Both ways between codes and RGB in [0, 1]: H.273, 8.3, equations 39 to 44."""
    kr, kg, kb = color.luma_weights
    scale = 1 << (bits - 8)
    black = 0 if color.is_full_range else 16 * scale
    luma_range = (1 << bits) - 1 if color.is_full_range else 219 * scale
    chroma_range = (1 << bits) - 1 if color.is_full_range else 224 * scale
    return {
        "luma_scale": 1 / luma_range,
        "luma_offset": -black / luma_range,
        "red_cr": 2 * (1 - kr) / chroma_range,
        "green_cb": -2 * (1 - kb) * kb / kg / chroma_range,
        "green_cr": -2 * (1 - kr) * kr / kg / chroma_range,
        "blue_cb": 2 * (1 - kb) / chroma_range,
        "chroma_middle": 1 << (bits - 1),
        "y_red": kr * luma_range,
        "y_green": kg * luma_range,
        "y_blue": kb * luma_range,
        "y_offset": black,
        "cb_red": -kr / (2 * (1 - kb)) * chroma_range,
        "cb_green": -kg / (2 * (1 - kb)) * chroma_range,
        "cb_blue": chroma_range / 2,
        "cr_red": chroma_range / 2,
        "cr_green": -kg / (2 * (1 - kr)) * chroma_range,
        "cr_blue": -kb / (2 * (1 - kr)) * chroma_range,
        "max_code": (1 << bits) - 1,
        "share_red": kr,
        "share_green": kg,
        "share_blue": kb,
    }


def _is_aligned(*numbers: int) -> bool:
    return all(number % _ACCESS_BYTES == 0 for number in numbers)


def _round_up(size: int, multiple: int = 256) -> int:
    # 256 is what NVENC and the texture units ask of a pitch, and the alignment of device allocations.
    return -(-size // multiple) * multiple

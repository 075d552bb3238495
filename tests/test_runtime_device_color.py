"""The CUDA kernels' arithmetic against the definition, on the CPU; and that nvcc takes them."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.color_reference import Floats, rgb_from_yuv, sited_downsampled, sited_upsampled, yuv_from_rgb
from helpers.host_kernels import FOLDER, SOURCE, host_kernels
from stylize.runtime.color import Color
from stylize.runtime.device_color import (
    Blend,
    ChromaSite,
    RgbTensors,
    SurfaceLayout,
    chroma_site_of,
    kernel_grid,
    kernel_pass,
)
from stylize.runtime.network_pass import reflect_pad

MATRICES = {"601": 6, "709": 1, "2020": 9}
SIZES = {"whole runs": (64, 32), "odd": (53, 35), "smaller than a run": (5, 3), "one pixel": (1, 1)}
ARCHITECTURES = ("75", "80", "86", "89", "90", "100", "120")
NUMBERS = np.random.default_rng(7)


@pytest.fixture(params=["left", "center", "top_left"])
def site(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChromaSite]:
    """All sites with all matrices, also those that no source pairs."""
    chosen: ChromaSite = request.param
    monkeypatch.setattr("stylize.runtime.device_color.chroma_site_of", lambda _color: chosen)
    kernel_pass.cache_clear()  # it remembers what it made of another site at the same addresses
    yield chosen
    kernel_pass.cache_clear()


class Picture:
    """A surface in memory with codes to read and write."""

    def __init__(self, pix_fmt: str, width: int, height: int, *, misaligned_by: int = 0) -> None:
        self.layout = SurfaceLayout(pix_fmt, width, height)
        self._memory = np.zeros(self.layout.size_bytes + 512, np.uint8)
        self._start = -self._memory.ctypes.data % 256 + misaligned_by
        self.planes = self.layout.planes_at(self._memory.ctypes.data + self._start)

    def _samples(self, plane: int) -> NDArray[Any]:
        rows, columns = self.layout.plane_shapes[plane]
        begin = self._start + self.layout.offsets_bytes[plane]
        pitch = self.layout.pitches_bytes[plane]
        lines = self._memory[begin : begin + rows * pitch].reshape(rows, pitch)
        return lines[:, : columns * self.layout.sample_bytes].view(np.uint8 if self.layout.bits == 8 else np.uint16)

    @property
    def _shift(self) -> int:
        return 6 if self.layout.pix_fmt == "p010le" else 0

    def fill(self, codes: list[NDArray[Any]]) -> None:
        y, cb, cr = (plane << self._shift for plane in codes)
        self._samples(0)[:] = y
        if self.layout.chroma_step == 2:
            self._samples(1)[:, ::2], self._samples(1)[:, 1::2] = cb, cr
        else:
            self._samples(1)[:], self._samples(2)[:] = cb, cr

    def codes(self) -> list[Floats]:
        chroma = [self._samples(1)[:, ::2], self._samples(1)[:, 1::2]]
        if self.layout.chroma_step == 1:
            chroma = [self._samples(1), self._samples(2)]
        assert not any((plane & ((1 << self._shift) - 1)).any() for plane in (self._samples(0), *chroma))
        return [(plane >> self._shift).astype(np.float64) for plane in (self._samples(0), *chroma)]


def random_codes(layout: SurfaceLayout) -> list[NDArray[Any]]:
    """All codes of the format, those outside the limited range too."""
    chroma = (layout.height + 1) // 2, (layout.width + 1) // 2
    return [NUMBERS.integers(0, 1 << layout.bits, shape) for shape in ((layout.height, layout.width), chroma, chroma)]


def tensors_like(
    width: int, height: int, dtype: type, *, multiple: int = 8
) -> tuple[RgbTensors, NDArray[Any], NDArray[Any]]:
    padded_width, padded_height = (-(-side // multiple) * multiple for side in (width, height))
    memory = [np.full(3 * padded_width * padded_height + 128, 7, dtype) for _ in range(2)]
    arrays = [
        flat[-flat.ctypes.data % 16 // flat.itemsize :][: 3 * padded_width * padded_height].reshape(
            3, padded_height, padded_width
        )
        for flat in memory
    ]
    source, styled = arrays
    tensors = RgbTensors(source.ctypes.data, styled.ctypes.data, padded_width, padded_height, source.itemsize)
    return tensors, source, styled


def kernel(direction: str, layout: SurfaceLayout, dtype: type) -> str:
    return f"{direction}_u{8 * layout.sample_bytes}_f{8 * np.dtype(dtype).itemsize}"


def rgb_of(picture: Picture, color: Color, dtype: type, *, multiple: int = 8) -> NDArray[Any]:
    """What `rgb_from_yuv` makes of a picture: (3, H, W), padded."""
    layout = picture.layout
    tensors, source, _ = tensors_like(layout.width, layout.height, dtype, multiple=multiple)
    argument = kernel_pass(picture.planes, tensors, size=(layout.width, layout.height), color=color)
    runs = -(-tensors.padded_width // (16 // layout.sample_bytes))
    host_kernels().run(kernel("rgb_from_yuv", layout, dtype), argument, runs, tensors.padded_height)
    return source


@pytest.mark.parametrize("is_full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("pix_fmt", ["nv12", "p010le", "yuv420p", "yuv420p10le"])
def test_rgb_is_that_of_the_definition(
    pix_fmt: str, size: tuple[int, int], matrix: int, is_full_range: bool, site: ChromaSite
) -> None:
    width, height = size
    picture = Picture(pix_fmt, width, height)
    codes = random_codes(picture.layout)
    picture.fill(codes)
    rgb = rgb_of(picture, Color(matrix=matrix, is_full_range=is_full_range), np.float32)[:, :height, :width]
    chroma = [sited_upsampled(plane, width=width, height=height, site=site) for plane in codes[1:]]
    yuv = np.stack([codes[0], *chroma], -1)
    wanted = rgb_from_yuv(yuv, matrix=matrix, is_full_range=is_full_range, bits=picture.layout.bits)
    # Rounding of float32 alone: a 1000th of a code of 10 bits.
    assert np.abs(np.moveaxis(rgb, 0, -1) - np.clip(wanted, 0, 1)).max() < 1e-6


@pytest.mark.parametrize("is_full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("pix_fmt", ["nv12", "p010le", "yuv420p", "yuv420p10le"])
def test_codes_are_those_of_the_definition(
    pix_fmt: str, size: tuple[int, int], matrix: int, is_full_range: bool, site: ChromaSite
) -> None:
    width, height = size
    even_width, even_height = width + width % 2, height + height % 2
    color = Color(matrix=matrix, is_full_range=is_full_range)
    tensors, _, styled = tensors_like(width, height, np.float32)
    styled[:, :height, :width] = NUMBERS.uniform(-0.1, 1.1, (3, height, width))
    picture = Picture(pix_fmt, even_width, even_height)
    argument = kernel_pass(picture.planes, tensors, size=size, color=color)
    host_kernels().run(
        kernel("yuv_from_rgb", picture.layout, np.float32), argument, -(-even_width // 8), even_height // 2
    )
    rgb = np.clip(np.moveaxis(styled[:, :height, :width], 0, -1).astype(np.float64), 0, 1)
    grown = np.pad(rgb, ((0, even_height - height), (0, even_width - width), (0, 0)), mode="edge")
    yuv = yuv_from_rgb(grown, matrix=matrix, is_full_range=is_full_range, bits=picture.layout.bits)
    wanted = [yuv[:, :, 0], *(sited_downsampled(yuv[:, :, index], site=site) for index in (1, 2))]
    for found, exact in zip(picture.codes(), wanted, strict=True):
        peak = (1 << picture.layout.bits) - 1
        # The nearest code; float32 may fall to the other side of a half.
        assert np.abs(found - np.clip(exact, 0, peak)).max() < 0.501


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("pix_fmt", ["nv12", "p010le"])
def test_a_picture_comes_back_within_one_code(pix_fmt: str, dtype: type, site: ChromaSite) -> None:
    """There and back through the network's type; smooth chroma, which subsampling keeps."""
    width, height = 70, 46
    color = Color(matrix=1, is_full_range=False)
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([0.2 + 0.5 * x / width, 0.4 + 0.2 * y / height, 0.7 - 0.3 * x / width], -1)
    bits = SurfaceLayout(pix_fmt, width, height).bits
    yuv = yuv_from_rgb(rgb, matrix=1, is_full_range=False, bits=bits)
    codes = [yuv[:, :, 0], *(sited_downsampled(yuv[:, :, index], site=site) for index in (1, 2))]
    source, target = Picture(pix_fmt, width, height), Picture(pix_fmt, width, height)
    source.fill([np.rint(plane).astype(np.int64) for plane in codes])
    tensors, network_input, styled = tensors_like(width, height, dtype)
    argument = kernel_pass(source.planes, tensors, size=(width, height), color=color)
    kernels = host_kernels()
    kernels.run(kernel("rgb_from_yuv", source.layout, dtype), argument, 100, 100)
    styled[:] = network_input
    argument = kernel_pass(target.planes, tensors, size=(width, height), color=color)
    kernels.run(kernel("yuv_from_rgb", source.layout, dtype), argument, 100, 100)
    # The odd chroma of a right or lower border has no second neighbour to come back from.
    for found, wanted in zip(target.codes(), source.codes(), strict=True):
        assert np.abs(found - wanted)[:-1, :-1].max() <= 1


@pytest.mark.parametrize("size", [(64, 32), (53, 35)], ids=["whole", "odd"])
@pytest.mark.parametrize("pix_fmt", ["nv12", "p010le", "yuv420p"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_wide_and_single_accesses_give_the_same_values(
    dtype: type, pix_fmt: str, size: tuple[int, int], site: ChromaSite
) -> None:
    width, height = size
    color = Color(matrix=9, is_full_range=False)
    aligned, misaligned = Picture(pix_fmt, width, height), Picture(pix_fmt, width, height, misaligned_by=2)
    codes = random_codes(aligned.layout)
    results = []
    for picture in (aligned, misaligned):
        picture.fill(codes)
        results.append(rgb_of(picture, color, dtype))
    # The order of four additions differs.
    assert np.abs(results[0].astype(np.float64) - results[1]).max() <= (5e-4 if dtype == np.float16 else 1e-6)


@pytest.mark.parametrize(("width", "height", "multiple"), [(53, 35, 32), (5, 3, 32), (1, 1, 8), (64, 32, 8)])
def test_padding_mirrors_as_on_the_cpu(width: int, height: int, multiple: int) -> None:
    picture = Picture("nv12", width, height)
    picture.fill(random_codes(picture.layout))
    padded = rgb_of(picture, Color(matrix=1, is_full_range=False), np.float32, multiple=multiple)
    wanted = padded.copy()
    wanted[:, height:], wanted[:, :, width:] = -1, -1
    reflect_pad(wanted, width=width, height=height)
    assert np.array_equal(padded, wanted)


@pytest.mark.parametrize("has_mask", [False, True], ids=["even", "mask"])
@pytest.mark.parametrize("keeps_colors", [False, True], ids=["blend", "keep colours"])
@pytest.mark.parametrize("width", [64, 53])
def test_strength_colours_and_mask_are_those_of_the_cpu(width: int, keeps_colors: bool, has_mask: bool) -> None:
    """Against the formulas of `Finish.store`, written out."""
    height, strength = 32, 0.6
    color = Color(matrix=6, is_full_range=True)
    tensors, source, styled = tensors_like(width, height, np.float32)
    source[:], styled[:] = (NUMBERS.uniform(0, 1, source.shape) for _ in range(2))
    mask = NUMBERS.uniform(0, 1, (height, width)).astype(np.float32)
    blend = Blend(strength=strength, keeps_colors=keeps_colors, mask=mask.ctypes.data if has_mask else 0)
    picture = Picture("nv12", width + width % 2, height)
    argument = kernel_pass(picture.planes, tensors, size=(width, height), color=color, blend=blend)
    host_kernels().run("yuv_from_rgb_u8_f32", argument, 100, 100)
    weight = strength * (mask if has_mask else 1.0)
    before, after = (np.moveaxis(array[:, :height, :width], 0, -1).astype(np.float64) for array in (source, styled))
    if keeps_colors:
        finished = before + (weight * ((after - before) @ color.luma_weights))[..., None]
    else:
        finished = before + np.asarray(weight)[..., None] * (after - before)
    luma = yuv_from_rgb(np.clip(finished, 0, 1), matrix=6, is_full_range=True)[:, :, 0]
    assert np.abs(picture.codes()[0][:, :width] - luma).max() < 0.501


@pytest.mark.parametrize("column", [3, 50])
def test_values_that_are_not_numbers_are_noticed(column: int) -> None:
    tensors, _, styled = tensors_like(53, 16, np.float32)
    styled[:] = 0.5
    flag = np.zeros(1, np.int32)
    picture = Picture("nv12", 54, 16)
    argument = kernel_pass(
        picture.planes,
        tensors,
        size=(53, 16),
        color=Color(matrix=1, is_full_range=False),
        not_a_number=flag.ctypes.data,
    )
    host_kernels().run("yuv_from_rgb_u8_f32", argument, 7, 8)
    assert flag[0] == 0
    styled[1, 9, column] = np.nan
    host_kernels().run("yuv_from_rgb_u8_f32", argument, 7, 8)
    assert flag[0] == 1


def test_value_range_of_a_foreign_model() -> None:
    picture = Picture("nv12", 32, 16)
    picture.fill(random_codes(picture.layout))
    color = Color(matrix=1, is_full_range=False)
    unit = rgb_of(picture, color, np.float32)
    tensors, source, _ = tensors_like(32, 16, np.float32)
    scaled = RgbTensors(tensors.source, tensors.styled, 32, 16, 4, value_range=(-1.0, 255.0))
    host_kernels().run("rgb_from_yuv_u8_f32", kernel_pass(picture.planes, scaled, size=(32, 16), color=color), 2, 16)
    np.testing.assert_allclose(source, unit * 256 - 1, atol=1e-4)


def test_chroma_site_follows_the_kind_of_source() -> None:
    sites = {
        (matrix, is_full): chroma_site_of(Color(matrix=matrix, is_full_range=is_full))
        for matrix in (1, 6, 9)
        for is_full in (False, True)
    }
    assert sites == {
        (1, False): "left",
        (1, True): "left",
        (6, False): "left",
        (6, True): "center",
        (9, False): "top_left",
        (9, True): "top_left",
    }


def test_rejects_a_format_without_kernels() -> None:
    with pytest.raises(ValueError, match=r"pix_fmt='yuv444p' must be one of nv12"):
        SurfaceLayout("yuv444p", 64, 64)


def test_grid_covers_every_run() -> None:
    assert kernel_grid(240, 1080) == ((8, 270), (32, 4, 1))
    assert kernel_grid(1, 1) == ((1, 1), (32, 4, 1))


def test_the_shipped_ptx_was_made_from_the_source() -> None:
    """`make kernels` writes it; this is what notices a forgotten one where there is no nvcc."""
    sources = b"".join(path.read_bytes() for suffix in ("h", "cu") for path in sorted(FOLDER.glob(f"*.{suffix}")))
    first = SOURCE.with_suffix(".ptx").read_text().splitlines()[0]
    assert first == f"// kernels {hashlib.sha256(sources).hexdigest()}"


@pytest.mark.slow
def test_no_size_pitch_or_address_lets_a_kernel_reach_outside(tmp_path: Path) -> None:
    """By the compiler's sanitizers, which see every access of every thread."""
    compiler, program = shutil.which("g++"), tmp_path / "bounds"
    if compiler is None:
        pytest.skip("no g++ on this machine")
    source = Path(__file__).parent / "helpers" / "color_bounds.cpp"
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [compiler, "-std=c++17", "-O0", "-w", *checks, f"-I{FOLDER}", str(source), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    if "cannot find" in built.stderr or "_Float16" in built.stderr:
        pytest.skip(f"{compiler} lacks its sanitizers or half floats")
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:1000]
    assert int(done.stdout) > 1000


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="no CUDA toolkit on this machine")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_shipped_ptx_assembles_for(architecture: str, tmp_path: Path) -> None:
    command = ["ptxas", f"-arch=sm_{architecture}", "-v", str(SOURCE.with_suffix(".ptx")), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Registers spilled to memory, or arrays that went there, would cost the bandwidth the kernels live on.
    assert done.stderr.count("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads") == 25, done.stderr

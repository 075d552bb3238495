"""Pictures through a device that is late at random: none lost, doubled, torn or freed too early."""

import gc
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.host_device import GARBAGE, HostDevice, HostRunner
from helpers.networks import write_affine
from stylize.runtime.artifact import open_artifact
from stylize.runtime.color import Color
from stylize.runtime.device_color import SurfaceLayout
from stylize.runtime.device_pass import NUM_IN_FLIGHT, DevicePass, picture_of
from stylize.runtime.errors import BackendError
from stylize.runtime.finish import Finish, FinishOptions
from stylize.runtime.frame import TimedPicture
from stylize.runtime.pipeline import run_pipeline
from stylize.runtime.selection import Item
from stylize.runtime.surface import OutputPool, OutputSlot, Surface, host_planes

WIDTH, HEIGHT = 80, 48
COLOR = Color(matrix=1, is_full_range=False)
BLACK, GREY = 16, 128


def luma_of(number: int) -> int:
    return BLACK + number % 200


def numbered(number: int, pix_fmt: str, *, width: int = WIDTH, height: int = HEIGHT) -> av.VideoFrame:
    """A grey picture that says in every sample of luma which one it is."""
    picture = av.VideoFrame(width, height, pix_fmt)
    is_deep = SurfaceLayout(pix_fmt, width, height).bits == 10
    for index, plane in enumerate(host_planes(picture)):
        code = GREY if index else luma_of(number)
        if is_deep:
            plane.view(np.uint16)[:] = (code * 4) << (6 if pix_fmt == "p010le" else 0)
        else:
            plane[:] = code
    picture.pts, picture.time_base, picture.duration = number, Fraction(1, 25), 1
    return picture


def surfaces(count: int, pix_fmt: str, *, width: int = WIDTH, height: int = HEIGHT) -> Iterator[Surface]:
    """Pictures decoded on the host."""
    for number in range(count):
        yield Surface(numbered(number, pix_fmt, width=width, height=height), COLOR)


def shown_number(picture: av.VideoFrame) -> int:
    """The number in every sample of luma; fails where two are mixed or garbage is."""
    luma = host_planes(picture)[0]
    if SurfaceLayout(picture.format.name, picture.width, picture.height).bits == 10:
        deep = luma.view(np.uint16)
        luma = (deep >> (8 if picture.format.name == "p010le" else 2)).astype(np.uint8)
    codes = np.unique(luma)
    assert len(codes) == 1, f"torn: {codes}"
    assert codes[0] != GARBAGE or luma_of(GARBAGE - BLACK) == GARBAGE
    assert all(len(np.unique(plane)) <= 2 for plane in host_planes(picture)[1:])
    return int(codes[0]) - BLACK


class Rig:
    """A pass on a device of threads, with the identity as its network."""

    def __init__(
        self,
        path: Path,
        *,
        seed: int,
        pix_fmt: str = "nv12",
        size: tuple[int, int] = (WIDTH, HEIGHT),
        scale: float = 1.0,
        steady: float = 0.0,
        max_delay_seconds: float = 0.002,
    ) -> None:
        width, height = size
        self.device = HostDevice(seed=seed, max_delay_seconds=max_delay_seconds)
        self.runner = HostRunner(open_artifact(write_affine(path / "identity.onnx", scale=scale)), self.device)
        self.runner.activate()
        self.device_pass = DevicePass(
            self.device,
            self.runner,
            cuda_stream=self.device.open_stream(),
            size=size,
            output=SurfaceLayout(pix_fmt, width + width % 2, height + height % 2),
            output_color=COLOR,
            is_encoded_by_host=True,
            steady=steady,
        )

    def begin(self, picture: TimedPicture) -> Callable[[], None]:
        assert isinstance(picture, Surface)
        return self.device_pass.begin(picture, finish=Finish())

    def close(self) -> None:
        self.device_pass.close()
        self.runner.close()
        self.device.close()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pix_fmt", ["nv12", "yuv420p", "p010le"])
def test_every_picture_comes_out_once_whole_and_in_order(pix_fmt: str, seed: int, tmp_path: Path) -> None:
    rig = Rig(tmp_path, seed=seed, pix_fmt=pix_fmt)
    seen: list[tuple[int, int]] = []

    def sink(item: Item) -> None:
        assert isinstance(item, Surface)
        rig.device.delay()
        seen.append((item.pts, shown_number(item.picture)))

    run_pipeline(surfaces(60, pix_fmt), network=rig.begin, sink=sink, num_in_flight=NUM_IN_FLIGHT)
    assert seen == [(number, number) for number in range(60)]
    gc.collect()
    rig.close()
    assert rig.device.allocated_bytes == 0


class Hiding(Finish):
    """Steadies, and shows one picture without style."""

    def __init__(self, hidden: int) -> None:
        super().__init__(FinishOptions(steady=0.9))
        self._hidden = hidden

    def strength_and_mask(self, picture: TimedPicture) -> tuple[float, NDArray[np.float32] | None]:
        return float(picture.pts != self._hidden), None


def steadied_lumas(
    path: Path, *, seed: int, max_delay_seconds: float, numbers: range = range(10), hidden: int = -1
) -> tuple[list[NDArray[np.uint8]], list[float]]:
    """A texture that moves by a pixel a picture, but for one of another scene; and where scenes begin."""
    texture = np.random.default_rng(0).integers(BLACK, 235, (HEIGHT, WIDTH + 10), np.uint8)
    rig = Rig(path, seed=seed, max_delay_seconds=max_delay_seconds, steady=0.9)
    finish = Hiding(hidden)
    found: list[NDArray[np.uint8]] = []

    def moving() -> Iterator[Surface]:
        for number in numbers:
            picture = numbered(number, "nv12")
            shown = np.flipud(texture) if number == 7 else texture
            host_planes(picture)[0][:] = shown[:, number : number + WIDTH]
            yield Surface(picture, COLOR)

    def begin(picture: TimedPicture) -> Callable[[], None]:
        assert isinstance(picture, Surface)
        return rig.device_pass.begin(picture, finish=finish)

    def sink(item: Item) -> None:
        assert isinstance(item, Surface)
        found.append(host_planes(item.picture)[0].copy())

    run_pipeline(moving(), network=begin, sink=sink, num_in_flight=NUM_IN_FLIGHT)
    rig.close()
    assert rig.device.allocated_bytes == 0
    return found, finish.cut_seconds


def test_steadying_does_not_depend_on_how_late_the_device_is(tmp_path: Path) -> None:
    """Its kernels read what others write, in two places by turns: out of order, or one too early, it would show."""
    wanted, cut_seconds = steadied_lumas(tmp_path, seed=0, max_delay_seconds=0.0)
    assert cut_seconds == [0.28, 0.32]
    for seed in (1, 2):
        found, again = steadied_lumas(tmp_path, seed=seed, max_delay_seconds=0.002)
        np.testing.assert_array_equal(found, wanted)
        assert again == cut_seconds


def test_steadying_begins_anew_behind_a_picture_without_style(tmp_path: Path) -> None:
    wanted, cut_seconds = steadied_lumas(tmp_path, seed=0, max_delay_seconds=0.0, numbers=range(5, 10))
    found, again = steadied_lumas(tmp_path, seed=1, max_delay_seconds=0.002, hidden=4)
    np.testing.assert_array_equal(found[5:], wanted)
    assert again == cut_seconds == [0.28, 0.32]
    held, _ = steadied_lumas(tmp_path, seed=0, max_delay_seconds=0.0)
    assert not np.array_equal(held[5], wanted[0]), "what was before it is seen where nothing hides it"


class DeviceDecoder:
    """A decoder of the device: it hands out pictures before their memory is filled, and takes it back at once.

    Its memory is its own. What comes back is scribbled over and filled again for a later picture.
    """

    def __init__(self, device: HostDevice) -> None:
        self._device = device
        with device.current():
            self._pool = OutputPool(
                lambda: OutputSlot(device, SurfaceLayout("nv12", WIDTH, HEIGHT), is_for_host=True), 2
            )

    def surfaces(self, count: int) -> Iterator[Surface]:
        for number in range(count):
            with self._device.current():
                slot = self._pool.take()
            assert slot.host is not None
            memory = slot.host.data
            self._device.decoder_stream.push(lambda memory=memory, number=number: self._fill(memory, number))  # type: ignore[attr-defined]
            picture = picture_of(slot, lambda slot=slot: self._take_back(slot))  # type: ignore[misc]
            picture.pts, picture.time_base, picture.duration = number, Fraction(1, 25), 1
            yield Surface(picture, COLOR)

    @staticmethod
    def _fill(memory: NDArray[np.uint8], number: int) -> None:
        luma_bytes = SurfaceLayout("nv12", WIDTH, HEIGHT).offsets_bytes[1]
        memory[:luma_bytes], memory[luma_bytes:] = luma_of(number), GREY

    def _take_back(self, slot: OutputSlot) -> None:
        assert slot.host is not None
        slot.host.data[:] = GARBAGE
        self._pool.give_back(slot)

    def close(self) -> None:
        self._pool.close()


@pytest.mark.parametrize("seed", range(3))
def test_decoded_pictures_are_held_until_they_are_read_and_read_when_they_are_filled(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stylize.runtime.device_pass.is_on_device", lambda _picture: True)
    rig = Rig(tmp_path, seed=seed)
    decoder = DeviceDecoder(rig.device)
    seen: list[int] = []

    def sink(item: Item) -> None:
        assert isinstance(item, Surface)
        seen.append(shown_number(item.picture))

    run_pipeline(decoder.surfaces(80), network=rig.begin, sink=sink, num_in_flight=NUM_IN_FLIGHT)
    assert seen == list(range(80))
    decoder.close()
    rig.close()
    assert rig.device.allocated_bytes == 0


def test_memory_is_bounded_by_what_is_under_way(tmp_path: Path) -> None:
    """However many pictures come: those in flight, in the queue, at the encoder and in its look-ahead."""
    size, look_ahead = (320, 240), 8
    rig = Rig(tmp_path, seed=1, size=size)
    held: list[av.VideoFrame] = []
    allocations: list[int] = []

    def sink(item: Item) -> None:
        """An encoder that holds some pictures."""
        assert isinstance(item, Surface)
        held.append(item.picture)
        if len(held) > look_ahead:
            number = shown_number(held.pop(0))
            assert number == item.pts - look_ahead, "a picture changed while the encoder held it"
        allocations.append(rig.device.num_allocations)

    source = surfaces(100, "nv12", width=size[0], height=size[1])
    run_pipeline(source, network=rig.begin, sink=sink, num_in_flight=NUM_IN_FLIGHT)
    num_queued = ((1 << 20) + 3 * SurfaceLayout("nv12", *size).size_bytes) // (size[0] * size[1] * 3 // 2) + 1
    most = NUM_IN_FLIGHT + num_queued + 1 + look_ahead
    assert rig.device_pass.num_output_slots <= most
    # Beside those: two tensors and a flag, and for each in flight a flag and two copies; nothing per picture.
    assert allocations[-1] <= 3 + 3 * NUM_IN_FLIGHT + 2 * most
    held.clear()
    rig.close()
    assert rig.device.allocated_bytes == 0


def test_a_real_encoder_with_look_ahead_gets_every_picture(tmp_path: Path) -> None:
    """Lossless, with threads that hold pictures; what it gives back late is not overwritten before."""
    rig = Rig(tmp_path, seed=2, pix_fmt="yuv420p")
    path = tmp_path / "out.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=25, options={"crf": "0", "preset": "ultrafast", "rc-lookahead": "20"}
        )
        context = stream.codec_context
        context.width, context.height, context.pix_fmt, context.thread_type = WIDTH, HEIGHT, "yuv420p", "FRAME"

        def sink(item: Item) -> None:
            assert isinstance(item, Surface)
            container.mux(stream.encode(item.picture))

        run_pipeline(surfaces(60, "yuv420p"), network=rig.begin, sink=sink, num_in_flight=NUM_IN_FLIGHT)
        container.mux(stream.encode(None))
    rig.close()
    with av.open(str(path)) as container:
        assert [shown_number(frame) for frame in container.decode(video=0)] == list(range(60))


@pytest.mark.parametrize("size", [(53, 35), (33, 64), (1, 1)])
def test_odd_sizes_grow_by_their_border(size: tuple[int, int], tmp_path: Path) -> None:
    rig = Rig(tmp_path, seed=3, size=size)
    numbers = []

    def sink(item: Item) -> None:
        assert isinstance(item, Surface)
        assert (item.picture.width, item.picture.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
        numbers.append(shown_number(item.picture))

    source = surfaces(6, "yuv420p", width=size[0], height=size[1])
    run_pipeline(source, network=rig.begin, sink=sink, num_in_flight=NUM_IN_FLIGHT)
    assert numbers == list(range(6))
    rig.close()


def test_an_encoder_that_fails_leaves_nothing_queued_and_no_memory(tmp_path: Path) -> None:
    rig = Rig(tmp_path, seed=4)

    def sink(item: Item) -> None:
        if isinstance(item, Surface) and item.pts == 7:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run_pipeline(surfaces(50, "nv12"), network=rig.begin, sink=sink, num_in_flight=NUM_IN_FLIGHT)
    assert [thread.name for thread in threading.enumerate() if thread.name in {"decode", "stylize", "encode"}] == []
    rig.close()
    assert rig.device.allocated_bytes == 0


def test_values_that_are_not_numbers_stop_the_run(tmp_path: Path) -> None:
    rig = Rig(tmp_path, seed=5, scale=float("nan"))
    with pytest.raises(BackendError, match=r"not numbers \(NaN\)"):
        run_pipeline(surfaces(9, "nv12"), network=rig.begin, sink=lambda _: None, num_in_flight=NUM_IN_FLIGHT)
    rig.close()


def test_a_device_that_fails_is_reported_by_the_next_picture(tmp_path: Path) -> None:
    rig = Rig(tmp_path, seed=6)
    rig.device.errors.append(RuntimeError("an illegal memory access"))
    with pytest.raises(BackendError, match="the device failed: an illegal memory access"):
        run_pipeline(surfaces(9, "nv12"), network=rig.begin, sink=lambda _: None, num_in_flight=NUM_IN_FLIGHT)
    with pytest.raises(BackendError, match="the device failed"):
        rig.device_pass.close()
    assert rig.device.allocated_bytes == 0
    rig.device.errors.clear()
    rig.device.close()


@pytest.mark.parametrize("capacity_bytes", [10_000, 100_000, 300_000])
def test_too_little_memory_is_one_line_and_leaves_none_taken(capacity_bytes: int, tmp_path: Path) -> None:
    device = HostDevice(seed=0, capacity_bytes=capacity_bytes)
    runner = HostRunner(open_artifact(write_affine(tmp_path / "identity.onnx")), device)
    stream = device.open_stream()
    with pytest.raises(BackendError, match="out of device memory"):
        DevicePass(
            device,
            runner,
            cuda_stream=stream,
            size=(256, 256),
            output=SurfaceLayout("nv12", 256, 256),
            output_color=COLOR,
            is_encoded_by_host=True,
        )
    assert device.allocated_bytes == 0
    device.close()


class Fading(Finish):
    """A mask that moves and a strength that falls, by picture number; strength 0 from picture 16 on."""

    def strength_and_mask(self, picture: TimedPicture) -> tuple[float, NDArray[np.float32] | None]:
        mask = np.zeros((HEIGHT, WIDTH), np.float32)
        mask[:, : 4 * picture.pts] = 1
        return max(0.0, 1 - picture.pts / 16), mask


def test_strength_and_mask_are_those_of_their_own_picture(tmp_path: Path) -> None:
    """The style is the negative of a grey one, so every sample says what it was blended with."""
    rig = Rig(tmp_path, seed=7, scale=0.0)  # black everywhere
    shown = []

    def sink(item: Item) -> None:
        assert isinstance(item, Surface)
        shown.append((item.pts, host_planes(item.picture)[0].copy()))

    finish = Fading()
    run_pipeline(
        surfaces(20, "nv12"),
        network=lambda item: rig.device_pass.begin(item, finish=finish),
        sink=sink,
        num_in_flight=NUM_IN_FLIGHT,
    )
    for number, luma in shown:
        strength, edge = max(0.0, 1 - number / 16), 4 * number
        blended = BLACK + (luma_of(number) - BLACK) * (1 - strength)
        assert np.abs(luma[:, :edge] - blended).max(initial=0) <= 0.51, number
        assert (luma[:, edge:] == luma_of(number)).all(), number
    rig.close()

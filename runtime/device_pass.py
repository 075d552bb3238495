"""Surfaces through a network on a device: converted, stylized and converted back without leaving it.

Three streams work at a time. For every picture (arrows are events):

    upload      copy in ----.
    compute                 '-> to RGB, network, steadying, to YUV ----.
    download                                                           '-> copy out ----> the host completes the picture

A picture that the decoder left on the device has no copy in, one that is encoded on the device no copy out. The
host queues `num_in_flight` pictures before it waits for the first of them, and only then hands that one on, so what
an encoder gets is finished. Nothing is allocated between the first picture and the last.
"""

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Final, Self

import av
import numpy as np
from av.video.frame import CudaContext
from numpy.typing import NDArray

from stylize.runtime.color import Color
from stylize.runtime.device import VALUE_BYTES, Device, DeviceBuffer, DeviceRunner, DeviceTensor, HostBuffer, Stream
from stylize.runtime.device_color import (
    Blend,
    RgbTensors,
    SurfaceLayout,
    SurfacePlanes,
    kernel_name,
    kernel_pass,
    surface_layout,
)
from stylize.runtime.device_steady import DeviceSteadier
from stylize.runtime.errors import BackendError
from stylize.runtime.extra_inputs import ExtraInputs, Extras
from stylize.runtime.finish import Finish
from stylize.runtime.network_pass import padded_size
from stylize.runtime.surface import OutputPool, OutputSlot, Surface, host_planes, is_on_device

__all__ = ["NUM_IN_FLIGHT", "DevicePass"]

NUM_IN_FLIGHT: Final = 4
"""Pictures queued at a time: one copied in, one in the network, one copied out, and one for the host to be late."""
# Whether the network wrote values that are no numbers, and whether a new scene begins; int32 each.
_FLAGS_BYTES: Final = 8


class DevicePass:
    """Stylizes surfaces of one size; a context manager, for one thread besides those that encode."""

    def __init__(
        self,
        device: Device,
        runner: DeviceRunner,
        *,
        cuda_stream: Stream,
        size: tuple[int, int],
        output: SurfaceLayout,
        output_color: Color,
        is_encoded_by_host: bool,
        make_picture: Callable[[OutputSlot, Callable[[], None]], av.VideoFrame] | None = None,
        extra_inputs: ExtraInputs | None = None,
        steady: float = 0.0,
    ) -> None:
        """Take the memory for everything.

        Args:
            device: where to work; stays the caller's.
            runner: the network, active; stays the caller's.
            cuda_stream: the stream on which the runner works.
            size: width and height of the pictures in pixels.
            output: format and size of what is encoded, even sides.
            output_color: what the codes of the output mean.
            is_encoded_by_host: whether finished pictures are copied to the host.
            make_picture: wraps a slot for the encoder, which gives it back by the function; by default `picture_of`.
            extra_inputs: what the network takes beside pictures; None for the first of its styles.
            steady: how strongly strokes are held in place, in [0, 1]; 0 takes no memory for it.

        Raises:
            BackendError: the device has too little memory.
        """
        self._device, self._runner, self._compute = device, runner, cuda_stream
        self._size, self._output_color = size, output_color
        self._make_picture = make_picture or picture_of
        contract = runner.contract
        self._extra_inputs = extra_inputs or ExtraInputs(contract)
        width, height = contract.fixed_size or padded_size(contract, *size)
        shape = (1, 3, height, width)
        self._num_begun = 0
        self._mask: _Mask | None = None
        self._upload, self._download = device.open_stream(), device.open_stream()
        with ExitStack() as owned, device.current():
            self._input, self._output = (
                DeviceTensor(owned.enter_context(device.allocate(num_bytes)).address, shape, contract.precision)
                for num_bytes in (DeviceTensor(0, shape, contract.precision).size_bytes,) * 2
            )
            self._tensors = RgbTensors(
                self._input.address,
                self._output.address,
                width,
                height,
                VALUE_BYTES[contract.precision],
                contract.value_range,
            )
            self._flags = owned.enter_context(device.allocate(_FLAGS_BYTES)).address
            self._steadier: DeviceSteadier | None = None
            if steady:
                self._steadier = owned.enter_context(
                    closing(DeviceSteadier(device, self._tensors, size=size, amount=steady, flags=self._flags))
                )
            self._inputs = [owned.enter_context(closing(_InputSlot(device))) for _ in range(NUM_IN_FLIGHT)]
            self._outputs = owned.enter_context(
                closing(OutputPool(lambda: OutputSlot(device, output, is_for_host=is_encoded_by_host), NUM_IN_FLIGHT))
            )
            self._clear_flags()
            self._warm_up()
            self._owned = owned.pop_all()

    def begin(self, surface: Surface, *, finish: Finish) -> Callable[[], None]:
        """Queue everything for `surface` and return what waits for it and makes it the finished picture.

        At most `NUM_IN_FLIGHT` may be begun; complete them once each and in order. Until then the surface must
        be kept: the device reads what the decoder put there.

        Raises:
            BackendError: the device refused the work; completing raises it too, and for values that are no numbers.
        """
        assert bool(finish.steady) == (self._steadier is not None), "the pass was made for this"
        entry = self._inputs[self._num_begun % NUM_IN_FLIGHT]
        self._num_begun += 1
        strength, mask = finish.strength_and_mask(surface)
        with self._device.current():
            source = self._source_planes(surface, entry)
            slot = self._outputs.take()
            blend = Blend(strength, finish.keeps_colors, self._mask_address(mask))
            tensors = self._tensors
            extras = self._extra_inputs.at(
                finish.seconds(surface), height=tensors.padded_height, width=tensors.padded_width
            )
            self._queue(source, surface.color, slot, blend, extras)
            compute, device = self._compute, self._device
            device.download(entry.flags, self._flags, _FLAGS_BYTES, cuda_stream=compute)
            entry.done.record(cuda_stream=compute)
            if slot.host is not None:
                self._download.wait_for(entry.done)
                device.download(slot.host, slot.buffer.address, slot.layout.size_bytes, cuda_stream=self._download)
                entry.done.record(cuda_stream=self._download)

        def complete() -> None:
            with self._device.current():
                entry.done.synchronize()
            has_nan, is_cut = entry.flags.data[:_FLAGS_BYTES].view(np.int32)
            if has_nan:
                raise BackendError("the network returned values that are not numbers (NaN)")
            if self._steadier is not None and blend.strength and is_cut:
                finish.note_cut(surface)
            surface.finish(self._tagged(self._make_picture(slot, lambda: self._outputs.give_back(slot))))

        return complete

    @property
    def num_output_slots(self) -> int:
        """Finished pictures there is memory for; does not grow once the encoder looks ahead no further."""
        return self._outputs.num_slots

    def close(self) -> None:
        """Wait for what is queued and free everything; no encoder may hold a picture any more."""
        with self._device.current():
            for stream in (self._download, self._compute, self._upload):
                self._owned.callback(stream.synchronize)  # the last first; what failed keeps no memory from being freed
            self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _queue(self, source: SurfacePlanes, color: Color, slot: OutputSlot, blend: Blend, extras: Extras) -> None:
        """Queue the steps on the compute stream."""
        compute, tensors = self._compute, self._tensors
        reading = kernel_pass(source, tensors, size=self._size, color=color)
        runs = -(-tensors.padded_width * source.layout.sample_bytes // 16)
        name = kernel_name("rgb_from_yuv", source.layout, tensors.value_bytes)
        self._device.launch(name, reading, runs, tensors.padded_height, cuda_stream=compute)
        if blend.strength:
            self._runner.enqueue(self._input, target=self._output, cuda_stream=compute.handle, extras=extras)
        if self._steadier is not None:
            tensors = dataclasses.replace(tensors, styled=self._steadier.result)
            if blend.strength:
                self._steadier.enqueue(cuda_stream=compute)
            else:
                self._steadier.reset()  # shown without style: what was before it has nothing to hold on to
        writing = kernel_pass(
            slot.planes,
            tensors,
            size=self._size,
            color=self._output_color,
            blend=blend,
            not_a_number=self._flags if blend.strength else 0,
        )
        layout = slot.layout
        name = kernel_name("yuv_from_rgb", layout, tensors.value_bytes)
        self._device.launch(name, writing, -(-layout.width // 8), -(-layout.height // 2), cuda_stream=compute)

    def _source_planes(self, surface: Surface, entry: "_InputSlot") -> SurfacePlanes:
        """Where the kernel reads: the decoder's own memory, or a copy on its way there."""
        picture, device = surface.picture, self._device
        if is_on_device(picture):
            # The decoder fills pictures on a stream of its own and does not wait for it.
            entry.uploaded.record(cuda_stream=device.decoder_stream)
            self._compute.wait_for(entry.uploaded)
            planes = picture.planes
            return SurfacePlanes(
                surface.pix_fmt,
                surface.width,
                surface.height,
                tuple(plane.buffer_ptr for plane in planes),
                tuple(plane.line_size for plane in planes),
            )
        layout = surface_layout(surface.pix_fmt, surface.width, surface.height)
        staged, buffer = entry.memory(device, layout.size_bytes)
        for plane, offset, pitch in zip(host_planes(picture), layout.offsets_bytes, layout.pitches_bytes, strict=True):
            rows, row_bytes = plane.shape
            staged.data[offset : offset + rows * pitch].reshape(rows, pitch)[:, :row_bytes] = plane
        device.upload(buffer.address, staged, layout.size_bytes, cuda_stream=self._upload)
        entry.uploaded.record(cuda_stream=self._upload)
        self._compute.wait_for(entry.uploaded)
        return layout.planes_at(buffer.address)

    def _mask_address(self, weights: NDArray[np.float32] | None) -> int:
        if weights is None:
            return 0
        if self._mask is None:
            self._mask = self._owned.enter_context(closing(_Mask(self._device, weights.nbytes)))
        return self._mask.show(weights, cuda_stream=self._compute)

    def _tagged(self, picture: av.VideoFrame) -> av.VideoFrame:
        color = self._output_color
        picture.colorspace, picture.color_range = color.matrix, color.range
        picture.color_primaries, picture.color_trc = color.primaries, color.transfer
        return picture

    def _warm_up(self) -> None:
        """Let the network take its memory and record its graph before any other thread works on the device."""
        tensor, (black, white) = self._input, self._runner.contract.value_range
        _, _, height, width = tensor.shape
        noise = np.random.default_rng(0).random(tensor.shape, np.float32) * np.float32(white - black) + black
        extras = self._extra_inputs.at(0.0, height=height, width=width)
        with self._device.allocate_host(tensor.size_bytes) as staged:
            staged.data.view(np.float16 if tensor.precision == "fp16" else np.float32)[:] = noise.reshape(-1)
            self._device.upload(tensor.address, staged, tensor.size_bytes, cuda_stream=self._compute)
            try:
                for _ in range(2):  # the second pass at the same addresses is what is recorded
                    self._runner.enqueue(tensor, target=self._output, cuda_stream=self._compute.handle, extras=extras)
            finally:
                self._compute.synchronize()

    def _clear_flags(self) -> None:
        zero = self._inputs[0].flags
        zero.data[:] = 0
        self._device.upload(self._flags, zero, _FLAGS_BYTES, cuda_stream=self._compute)
        self._compute.synchronize()


def picture_of(
    slot: OutputSlot, on_return: Callable[[], None], *, cuda_context: CudaContext | None = None
) -> av.VideoFrame:
    """The slot as FFmpeg's picture; `on_return` is called once no encoder holds it any more.

    Args:
        slot: the memory.
        on_return: called from any thread.
        cuda_context: FFmpeg's view of the GPU that the slot is on, None for one of the host.
    """
    layout = slot.layout
    return av.VideoFrame.from_dlpack(
        tuple(slot.lend(on_return)),
        format=layout.pix_fmt,
        width=layout.width,
        height=layout.height,
        cuda_context=cuda_context,
    )


class _InputSlot:
    """What one picture in flight needs on its way in; the memory is made by the first picture that needs it."""

    def __init__(self, device: Device) -> None:
        self.uploaded, self.done = device.open_event(), device.open_event()
        self.flags = device.allocate_host(_FLAGS_BYTES)
        self._memory: tuple[HostBuffer, DeviceBuffer] | None = None

    def memory(self, device: Device, size_bytes: int) -> tuple[HostBuffer, DeviceBuffer]:
        """Memory of the host and the device for `size_bytes`; the slot's last picture is completed."""
        if self._memory is None or self._memory[0].size_bytes < size_bytes:
            self._free()
            self._memory = device.allocate_host(size_bytes), device.allocate(size_bytes)
        return self._memory

    def close(self) -> None:
        self._free()
        self.flags.close()

    def _free(self) -> None:
        for buffer in self._memory or ():
            buffer.close()
        self._memory = None


class _Mask:
    """The weights last shown, on the device."""

    def __init__(self, device: Device, size_bytes: int) -> None:
        self._device = device
        self._host, self._buffer = device.allocate_host(size_bytes), device.allocate(size_bytes)
        self._uploaded = device.open_event()
        self._shown: NDArray[np.float32] | None = None

    def show(self, weights: NDArray[np.float32], *, cuda_stream: Stream) -> int:
        """Address of `weights` for work queued on `cuda_stream` after this; copied only when they have changed."""
        if weights is not self._shown:
            self._uploaded.synchronize()  # the copy before must have left the host's memory
            self._host.data[:] = np.ascontiguousarray(weights).view(np.uint8).reshape(-1)
            self._device.upload(self._buffer.address, self._host, weights.nbytes, cuda_stream=cuda_stream)
            self._uploaded.record(cuda_stream=cuda_stream)
            self._shown = weights
        return self._buffer.address

    def close(self) -> None:
        self._host.close()
        self._buffer.close()

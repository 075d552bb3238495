"""Videos whose pictures stay on the device: when that is possible, and what stands in where it is not."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Protocol

import av
from av.video.frame import CudaContext

from stylize.runtime.color import ColorConverter
from stylize.runtime.decode import Decoder
from stylize.runtime.device_bridge import DeviceBridge, DeviceSession
from stylize.runtime.device_color import SurfaceLayout
from stylize.runtime.device_pass import NUM_IN_FLIGHT, DevicePass, picture_of
from stylize.runtime.extra_inputs import ExtraInputs
from stylize.runtime.finish import Finish
from stylize.runtime.frame import TimedPicture
from stylize.runtime.network_pass import padded_size
from stylize.runtime.runner import HostRunner
from stylize.runtime.selection import Item
from stylize.runtime.surface import OutputSlot, Surface
from stylize.runtime.surface_source import downloaded

__all__ = ["SurfaceRender", "SurfaceSink", "surface_session"]


def surface_session(runner: HostRunner, *, style_scale: float) -> DeviceSession | None:
    """The device on which `runner` can take whole surfaces, None where its pictures pass through the CPU.

    The kernels pad and write planes of RGB; they neither scale nor paint from noise alone.
    """
    if not isinstance(runner, DeviceBridge):
        return None
    contract = runner.contract
    takes_planes = contract.layout == "NCHW" and not contract.makes_textures
    return runner.session if takes_planes and style_scale == 1.0 else None


class SurfaceSink(Protocol):
    """What encodes surfaces: an `Encoder`, or the writer of segments."""

    @property
    def description(self) -> str:
        """Encoder and pixel format really in use."""

    @property
    def surface_layout(self) -> SurfaceLayout | None:
        """How surfaces must be finished to be encoded as they are; None where only frames can be."""

    @property
    def takes_device_memory(self) -> bool:
        """Whether finished surfaces stay on the GPU."""


class SurfaceRender:
    """Takes the surfaces of one decoder through a device to one encoder, or as frames through the CPU."""

    def __init__(
        self,
        session: DeviceSession,
        decoder: Decoder,
        encoder: SurfaceSink,
        *,
        finish: Finish,
        owned: ExitStack,
        begin_frame: Callable[[TimedPicture], Callable[[], None]],
        extra_inputs: ExtraInputs,
    ) -> None:
        """Take the memory that the surfaces need.

        Args:
            session: the device and the network.
            decoder: the source.
            encoder: where surfaces go.
            finish: how the style shows.
            owned: closes the memory once the encoder has closed; it must be left after the encoder.
            begin_frame: starts on a frame instead.
            extra_inputs: what the network takes beside pictures.

        Raises:
            BackendError: the device has too little memory.
        """
        self._decoder, self._finish, self._begin_frame = decoder, finish, begin_frame
        self._converter = ColorConverter()
        self._pass: DevicePass | None = None
        layout, info = encoder.surface_layout, decoder.info
        contract = session.runner.contract
        if decoder.surface_gpu is None:
            return
        reasons = {
            f"{encoder.description} is not 4:2:0 of 8 or 10 bits": layout is None,
            "scaled to the one size of the engine": contract.fixed_size
            not in (None, padded_size(contract, info.width, info.height)),
        }
        if any(reasons.values()) or layout is None:
            why = ", ".join(reason for reason, is_so in reasons.items() if is_so)
            decoder.notes.append(f"pictures pass through the CPU: {why}")
            return
        make_picture: Callable[[OutputSlot, Callable[[], None]], av.VideoFrame] = picture_of
        if encoder.takes_device_memory:
            # One context for all pictures: the encoder takes what belongs to the first one's.
            context = CudaContext(device_id=session.device.dlpack_device[1], primary_ctx=True)
            make_picture = partial(picture_of, cuda_context=context)
        self._pass = owned.enter_context(
            DevicePass(
                session.device,
                session.runner,
                cuda_stream=session.cuda_stream,
                size=(info.width, info.height),
                output=layout,
                output_color=info.color,
                is_encoded_by_host=not encoder.takes_device_memory,
                make_picture=make_picture,
                extra_inputs=extra_inputs,
                steady=finish.steady,
            )
        )

    @property
    def num_in_flight(self) -> int | None:
        """How many pictures may be begun at a time; None leaves it to those that are no surfaces."""
        return NUM_IN_FLIGHT if self._pass is not None else None

    def __iter__(self) -> Iterator[Item]:
        """What the decoder yields; surfaces as frames where they cannot be taken as they are."""
        for item in self._decoder:
            yield item if self._pass is not None or not isinstance(item, Surface) else self._frame_of(item)

    def begin(self, picture: TimedPicture) -> Callable[[], None]:
        """Start on a picture and return what completes it in place."""
        if self._pass is None or not isinstance(picture, Surface):
            return self._begin_frame(picture)
        return self._pass.begin(picture, finish=self._finish)

    def _frame_of(self, surface: Surface) -> TimedPicture:
        frame = self._converter.frame_from_picture(
            downloaded(surface.picture), color=surface.color, width=surface.width, height=surface.height
        )
        frame.copy_time_from(surface)
        return frame

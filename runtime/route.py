"""The way of the pictures through the network: as surfaces that stay on its device where they can, else as frames."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Self

import av
from av.video.frame import CudaContext

from stylize.runtime.color import ColorConverter
from stylize.runtime.decode import Decoder
from stylize.runtime.device_pass import NUM_IN_FLIGHT, DevicePass, picture_of
from stylize.runtime.finish import Finish
from stylize.runtime.frame import TimedPicture
from stylize.runtime.network_pass import padded_size
from stylize.runtime.selection import Item
from stylize.runtime.stylizer import Stylizer
from stylize.runtime.surface import OutputSlot, Surface
from stylize.runtime.surface_source import downloaded
from stylize.runtime.video_encoder import VideoEncoder

__all__ = ["Route"]


class Route:
    """Takes the pictures of one decoder through one network to one encoder; a context manager.

    To be left after the encoder has closed, which may hold pictures in the memory of this.
    """

    def __init__(self, stylizer: Stylizer, decoder: Decoder, *, finish: Finish) -> None:
        """Lead frames through `stylizer`; what it needs for surfaces is taken by `lead_to`."""
        self._stylizer, self._decoder, self._finish = stylizer, decoder, finish
        self._is_alone = False
        self._converter = ColorConverter()
        self._pass: DevicePass | None = None

    def lead_to(self, encoder: VideoEncoder | None, *, is_alone: bool = False) -> None:
        """Take the memory that surfaces need, where there are any and `encoder` takes them.

        Args:
            encoder: where the pictures go; None where they are written by no encoder of videos.
            is_alone: whether there is a single one, see `Stylizer.begin`.

        Raises:
            BackendError: the device has too little memory.
        """
        self._is_alone = is_alone
        session, decoder = self._stylizer.surface_session, self._decoder
        if session is None or decoder.surface_gpu is None or encoder is None:
            return
        layout, info = encoder.surface_layout, decoder.info
        fixed_size = session.runner.contract.fixed_size
        reasons = {
            f"{encoder.description} is not 4:2:0 of 8 or 10 bits": layout is None,
            "scaled to the one size of the engine": fixed_size
            not in (None, padded_size(session.runner.contract, info.width, info.height)),
        }
        if any(reasons.values()) or layout is None:
            why = ", ".join(reason for reason, is_so in reasons.items() if is_so)
            decoder.notes.append(f"pictures pass through the CPU: {why}")
            return
        make_picture: Callable[[OutputSlot, Callable[[], None]], av.VideoFrame] = picture_of
        if encoder.is_opened_by_frame:
            # One context for all pictures: the encoder takes what belongs to the first one's.
            context = CudaContext(device_id=session.device.dlpack_device[1], primary_ctx=True)
            make_picture = partial(picture_of, cuda_context=context)
        self._pass = DevicePass(
            session.device,
            session.runner,
            cuda_stream=session.cuda_stream,
            size=(info.width, info.height),
            output=layout,
            output_color=info.color,
            is_encoded_by_host=not encoder.is_opened_by_frame,
            make_picture=make_picture,
            extra_inputs=self._stylizer.extra_inputs,
            steady=self._finish.steady,
        )

    @property
    def num_in_flight(self) -> int:
        """How many pictures may be begun before the first is completed."""
        return self._stylizer.num_in_flight if self._pass is None else NUM_IN_FLIGHT

    def passable(self, items: Iterable[Item]) -> Iterator[Item]:
        """`items` of the decoder; surfaces as frames where they cannot be taken as they are."""
        for item in items:
            yield item if self._pass is not None or not isinstance(item, Surface) else self._frame_of(item)

    def begin(self, picture: TimedPicture) -> Callable[[], None]:
        """Start on a picture and return what completes it in place, steadying of frames aside."""
        if self._pass is None or not isinstance(picture, Surface):
            return self._stylizer.begin(picture, finish=self._finish, is_alone=self._is_alone)
        return self._pass.begin(picture, finish=self._finish)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pass is not None:
            self._pass.close()

    def _frame_of(self, surface: Surface) -> TimedPicture:
        frame = self._converter.frame_from_picture(
            downloaded(surface.picture), color=surface.color, width=surface.width, height=surface.height
        )
        frame.copy_time_from(surface)
        return frame

"""What a network takes beside the frame, on a device that is late at random: each pass sees its own values."""

import numpy as np
import pytest

from helpers.host_device import HostDevice, array_at
from stylize.runtime.device import DeviceTensor
from stylize.runtime.device_inputs import DeviceInputs
from stylize.runtime.errors import BackendError


@pytest.mark.parametrize("seed", range(3))
def test_every_pass_sees_the_values_it_was_queued_with(seed: int) -> None:
    device = HostDevice(seed=seed)
    stream = device.open_stream()
    inputs = DeviceInputs(device, cuda_stream=stream)
    seen: list[tuple[float, float]] = []

    def read(tensors: dict[str, DeviceTensor]) -> None:
        seen.append((float(array_at(tensors["mix"])[0]), float(array_at(tensors["noise"])[0, 0, 0, 0])))

    sizes = [(8, 12)] * 20 + [(4, 4)] * 10
    with device.current():
        addresses = set()
        for number, size in enumerate(sizes):
            extras = {
                "mix": np.full(3, number // 2, np.float32),  # some passes see the same as the one before
                "noise": np.full((1, 3, *size), size[0], np.float16),
            }
            shown = inputs.show(extras)
            for array in extras.values():
                array[:] = -1  # the caller's memory is the caller's
            addresses.add(shown["mix"].address)
            assert (shown["mix"].precision, shown["noise"].precision) == ("fp32", "fp16")
            assert shown["noise"].shape == (1, 3, *size)
            stream.push(lambda shown=shown: read(shown))  # type: ignore[attr-defined]
        stream.synchronize()
        assert seen == [(number // 2, size[0]) for number, size in enumerate(sizes)]
        assert len(addresses) == 1, "a CUDA graph reads at the address it was recorded with"
        inputs.close()
        inputs.close()
    assert device.allocated_bytes == 0
    device.close()


def test_values_that_stay_are_copied_once() -> None:
    device = HostDevice(seed=0)
    stream = device.open_stream()
    uploads: list[int] = []
    upload = device.upload
    device.upload = lambda *arguments, **names: uploads.append(1) or upload(*arguments, **names)  # type: ignore[method-assign, func-returns-value]
    with device.current(), pytest.raises(BackendError, match="out of device memory"):
        inputs = DeviceInputs(device, cuda_stream=stream)
        noise = np.zeros((1, 3, 4, 4), np.float32)
        for mix in ((0, 1), (0, 1), (1, 0)):
            inputs.show({"mix": np.array(mix, np.float32), "noise": noise})
        assert len(uploads) == 3
        stream.synchronize()
        inputs.close()
        device.capacity_bytes = 100
        inputs.show({"noise": noise})
    device.close()
